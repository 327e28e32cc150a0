/* Takes without end: m memory, f descriptors, p processes, u maps and unmaps; h takes nothing. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map(long size) { return mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

int main(int argc, char **argv)
{
    switch (argv[1][0]) {
    case 'm':
        for (;;)
            memset(map(1 << 20), 1, 1 << 20);
    case 'f':
        while (open("/dev/null", O_RDONLY) >= 0)
            ;
        break;
    case 'p':
        for (int pid; (pid = fork()) >= 0;)
            if (pid == 0)
                for (;;)
                    pause();
        break;
    case 'u':
        for (int i = 0; i < 10000; i++) {
            char *at = map(65536);
            *at = 1;
            munmap(at, 65536);
        }
    }
    return 0;
}
