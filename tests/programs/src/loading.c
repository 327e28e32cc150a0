/* Dynamic loading by hand: dlopen, dlsym, a constructor and destructor, a thread-local of a late library, errors. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int answer = 1; /* the library's `seen` refers to it: symbols of the program come first */

int main(int argc, char **argv)
{
    void *library = dlopen(argv[argc - 1], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return printf("%s\n", dlerror()), 1;
    int (*count)(void) = (int (*)(void))dlsym(library, "count");
    int *(*local)(void) = (int *(*)(void))dlsym(library, "local");
    int **table = dlsym(library, "table");
    int first = count();
    printf("count %d %d, local %d, table %d %d\n", first, count(), *local(), *table[0], *table[1]);
    Dl_info info;
    printf("named %s\n", dladdr((void *)count, &info) ? info.dli_sname : "nothing");
    printf("absent %d\n", dlsym(library, "absent") == NULL);
    printf("again %d\n", dlopen(argv[argc - 1], RTLD_NOW | RTLD_NOLOAD) == library);
    dlclose(library);
    dlclose(library);
    printf("getpid is %s\n", getpid() == 42 ? "the preloaded library's" : "libc's");
    return 0;
}
