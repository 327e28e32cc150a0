/* Each case in a child; how it ended is printed. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <stdint.h>
#include <ucontext.h>

static char *page(int prot){ char *p = mmap(0, 16384, PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0); return p; }
static void run_code(const void *code, int n){ char *p = page(7); memcpy(p, code, n); __builtin___clear_cache(p, p+4096); ((void(*)(void))p)(); }
#define CODE(name, ...) static void name(void){ static const unsigned char c[] = {__VA_ARGS__}; run_code(c, sizeof c); }
static void on_sig(int s, siginfo_t *i, void *u){ char b[100]; int n = snprintf(b, 100, "  sig %d code %d addr %lx\n", s, i->si_code, (s==SIGSEGV||s==SIGBUS||s==SIGILL||s==SIGFPE||s==SIGTRAP)? (unsigned long)i->si_addr & 0xfff : 0); write(1,b,n); _exit(50); }

static void fds(void){ int n=0, fd; while ((fd=open("/dev/null", O_RDONLY))>=0) n++; printf("  %d opens, errno %d\n", n, errno); fflush(stdout); int p[2]; printf("  pipe %d errno %d\n", pipe(p), errno); fflush(stdout); _exit(0);}
static void sigpipe(void){ int p[2]; pipe(p); close(p[0]); write(p[1],"x",1); }
static void epipe(void){ int p[2]; pipe(p); close(p[0]); signal(SIGPIPE,SIG_IGN); int r=write(p[1],"x",1); printf("  %d errno %d\n", r, errno); fflush(stdout); _exit(0);}
static volatile int depth;
static void again(int s){ depth++; raise(SIGUSR1); }
static void sigrec(void){ struct sigaction a={0}; a.sa_handler=again; a.sa_flags=SA_NODEFER; sigaction(SIGUSR1,&a,0); raise(SIGUSR1); }
static void segvrec_h(int s){ *(volatile int*)8=1; }
static void segvrec(void){ signal(SIGSEGV, segvrec_h); *(volatile int*)8=1; }
static void segvnodefer(void){ struct sigaction a={0}; a.sa_handler=segvrec_h; a.sa_flags=SA_NODEFER; sigaction(SIGSEGV,&a,0); *(volatile int*)8=1; }
static void textwrite(void){ volatile char*p=(char*)(void*)textwrite; p[0]=1; }
static void textrw(void){ char *p=(char*)((uintptr_t)textrw & -65536L); int r=mprotect(p, 65536, 7); printf("  mprotect %d\n", r); fflush(stdout); for(long i=0;i<65536;i++) ((volatile char*)p)[i]=0; }
static void smash_sp(void){
#if defined __x86_64__
 __asm__ volatile("mov $0x8, %rsp; push %rax");
#else
 __asm__ volatile("mov sp, #16\n str x0,[sp,#-16]!");
#endif
}
static void badjump(void){ ((void(*)(void))0xffffffff80000000UL)(); }
static void noncanon(void){ ((void(*)(void))0x0001000000000000UL)(); }
static void noncanonread(void){ *(volatile char*)0x8000000000000000UL; }
static void kread(void){ *(volatile char*)0xffff888000000000UL; }
static void topread(void){ *(volatile long*)0x7fffffffeffcUL; }
static void lastpage(void){ *(volatile long*)0xfffffffffffffffcUL; }
static void nulljump(void){ ((void(*)(void))0)(); }
static void misal(void){ char *p=page(3); volatile uint64_t*q=(void*)(p+4093); *q=0x1122334455667788; printf("  %llx\n", (unsigned long long)*q); fflush(stdout); _exit(0);}
static void smc2(void){ /* code across two pages, rewritten */
 unsigned char *p=(void*)page(7); long sum=0;
#if defined __x86_64__
 for(int i=0;i<50;i++){ unsigned char c[]={0xb8,i,0,0,0,0xc3}; memcpy(p+4093,c,6); sum+=((int(*)(void))(p+4093))(); }
#else
 for(int i=0;i<50;i++){ unsigned c[]={0x52800000|i<<5,0xd65f03c0}; memcpy(p+4092,c,8); __builtin___clear_cache((char*)p+4092,(char*)p+4100); sum+=((int(*)(void))(p+4092))(); }
#endif
 printf("  %ld\n", sum); fflush(stdout); _exit(0);}
static void stackbomb(void){ volatile char b[4096]; b[0]=1; stackbomb(); b[1]=b[0]; }
static void killself(void){ kill(getpid(), SIGKILL); }
static void sigreturnraw(void){
#if defined __x86_64__
 __asm__ volatile("mov $15,%eax; syscall");
#else
 __asm__ volatile("mov x8,#139; svc #0");
#endif
}
static void forkbomb(void){ struct rlimit r={40,40}; setrlimit(RLIMIT_NPROC,&r); if(setuid(1000)) _exit(3); signal(SIGCHLD,SIG_IGN); int n=0; for(int i=0;i<100;i++){ int pid=fork(); if(pid<0) break; if(pid==0){ pause(); _exit(0);} n++; } printf("  %d children, errno %d\n", n, errno); fflush(stdout); kill(0, SIGKILL); }
static void mapmany(void){ int n=0; for(;n<70000;n++){ if(mmap(0,4096,(n&1)?PROT_READ:PROT_NONE,MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE,-1,0)==MAP_FAILED) break; } printf("  errno %d\n", errno); fflush(stdout); _exit(n>60000?0:1); }
static void churn(void){ for(int i=0;i<20000;i++){ char*p=mmap(0,65536,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); p[0]=1; munmap(p,65536);} _exit(0);}
static void threadsig(void){ for(int i=1;i<65;i++) if(i!=9&&i!=19) signal(i, SIG_IGN); for(int i=1;i<65;i++) if(i!=9&&i!=19) raise(i); _exit(0);}
static void rlimstack(void){ struct rlimit r={0,0}; setrlimit(RLIMIT_STACK,&r); char*a[]={"/x","nothing",0}; execv("/proc/self/exe",a); printf("  errno %d\n", errno); fflush(stdout); _exit(0);}
static void unmapself(void){ munmap((void*)((uintptr_t)unmapself & -65536L), 65536); }
static void unmapstack(void){ char c; munmap((void*)((uintptr_t)&c & -65536L), 1<<20); c=1; (void)*(volatile char*)&c; }
static void unmapall(void){ syscall(SYS_munmap, 0, 0x7ffffffff000UL & -65536L); }
static void altbad(void){ stack_t s={(void*)0x1000,0,65536}; sigaltstack(&s,0); struct sigaction a={0}; a.sa_handler=again; a.sa_flags=SA_ONSTACK; sigaction(SIGUSR1,&a,0); raise(SIGUSR1); }
#if defined __x86_64__
CODE(hlt,0xf4) CODE(in_al,0xec) CODE(out_al,0xee) CODE(wrmsr,0x0f,0x30) CODE(rdmsr,0x0f,0x32) CODE(iretq,0x48,0xcf) CODE(cli,0xfa) CODE(sti,0xfb)
CODE(int3,0xcc) CODE(int1,0xf1) CODE(int4,0xcd,4) CODE(int20,0xcd,0x20) CODE(int255,0xcd,0xff) CODE(ud2,0x0f,0x0b) CODE(lgdt,0x0f,0x01,0x10) CODE(movcr3,0x0f,0x22,0xd8) CODE(rdcr0,0x0f,0x20,0xc0) CODE(movdr,0x0f,0x23,0xc0)
CODE(sysret,0x48,0x0f,0x07) CODE(sysexit,0x0f,0x35) CODE(swapgs,0x0f,0x01,0xf8) CODE(invlpg,0x0f,0x01,0x38) CODE(wbinvd,0x0f,0x09) CODE(clts,0x0f,0x06) CODE(ltr,0x0f,0x00,0xd8) CODE(div0,0x31,0xc9,0xf7,0xf1) CODE(lret,0xcb) CODE(into64,0xce) CODE(push_es,0x06)
CODE(popf_tf,0x9c,0x58,0x0d,0,1,0,0,0x50,0x9d,0x90,0x90) CODE(popf_ac,0x9c,0x58,0x48,0x0d,0,0,4,0,0x50,0x9d,0x48,0x8b,0x04,0x25,1,0,0,0)
CODE(xchgpfx,0xf0,0x90) CODE(longinsn,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90)
CODE(fpu_fault,0x9b,0xdb,0xe3,0xd9,0x2c,0x24,0xd9,0xe8,0xd9,0xee,0xde,0xf9,0x9b,0xc3) CODE(movss_ds,0x31,0xc0,0x8e,0xd0) CODE(movds,0xb8,0xff,0xff,0,0,0x8e,0xd8) CODE(monitor,0x0f,0x01,0xc8) CODE(vmcall,0x0f,0x01,0xc1) CODE(rsm,0x0f,0xaa)
CODE(noncanon_store,0x48,0xb8,0,0,0,0,0,0,1,0,0xc6,0x00,1) CODE(movaps_mis,0x48,0x83,0xe4,0xf0,0x0f,0x29,0x44,0x24,1) CODE(movfs,0xb8,0x33,0,0,0,0x8e,0xe0,0x64,0x48,0x8b,0x04,0x25,0,0,0,0)
static void int80(void){ long r; __asm__ volatile("mov $20,%%eax; int $0x80" : "=a"(r)::"memory"); printf("  %s\n", r==getpid()?"pid":"other"); fflush(stdout); _exit(0);}
static void sysenter(void){ static const unsigned char c[]={0x0f,0x34}; run_code(c,2);} 
static void vsysjump(void){ ((void(*)(void))0xffffffffff600001UL)(); }
static void vsysread(void){ *(volatile char*)0xffffffffff600000UL; }
#else
#define W(x) (x)&255,((x)>>8)&255,((x)>>16)&255,((unsigned)(x)>>24)
CODE(smc,W(0xd4000003)) CODE(hvc,W(0xd4000002)) CODE(msr_ttbr,W(0xd5182000)) CODE(mrs_sctlr,W(0xd5381000)) CODE(mrs_ctr,W(0xd53b0020),W(0xd65f03c0)) CODE(mrs_midr,W(0xd5380000),W(0xd65f03c0)) CODE(dc_civac0,W(0xd2800000),W(0xd50b7e20),W(0xd65f03c0)) CODE(dc_zva0,W(0xd2800000),W(0xd50b7420)) CODE(dc_ivac,W(0xd5087620)) CODE(ic_ivau0,W(0xd2800000),W(0xd50b7520),W(0xd65f03c0)) CODE(ic_iallu,W(0xd508751f))
CODE(brk0,W(0xd4200000)) CODE(brk1000,W(0xd4207d00)) CODE(hlt0,W(0xd4400000)) CODE(udf,0,0,0,0) CODE(eret,W(0xd69f03e0)) CODE(wfi,W(0xd503207f),W(0xd65f03c0)) CODE(wfe,W(0xd503205f),W(0xd65f03c0)) CODE(sevl,W(0xd50320bf),W(0xd65f03c0)) CODE(svc1,W(0xd2801588),W(0xd4000021),W(0xd65f03c0)) CODE(msr_daif,W(0xd50343df)) CODE(mrs_cntvct,W(0xd53be040),W(0xd65f03c0)) CODE(mrs_cntpct,W(0xd53be020),W(0xd65f03c0)) CODE(mrs_pmccntr,W(0xd53b9d00)) CODE(dcps1,W(0xd4a00001)) CODE(tlbi,W(0xd508871f)) CODE(mrs_pan,W(0xd5384260)) CODE(msr_fpcr,W(0xd51b4400),W(0xd65f03c0)) CODE(mrs_idisar,W(0xd5380600),W(0xd65f03c0)) CODE(sve,W(0x04bf5020)) CODE(isb,W(0xd5033fdf),W(0xd65f03c0))
static void ldxr_mis(void){ char*p=page(3); long v; __asm__ volatile("ldxr %0,[%1]":"=r"(v):"r"(p+1)); _exit(0);} 
static void ldar_mis(void){ char*p=page(3); long v; __asm__ volatile("ldar %0,[%1]":"=r"(v):"r"(p+1)); _exit(0);} 
static void pcmis(void){ ((void(*)(void))((uintptr_t)page(7)+2))(); }
static void spmis(void){ __asm__ volatile("add x0,sp,#8\n mov sp,x0\n ldr x1,[sp]"); }
static void tagged(void){ char*p=page(3); *p=5; volatile char*q=(char*)((uintptr_t)p|0xab00000000000000UL); printf("  %d\n",*q); fflush(stdout); _exit(0);} 
static void taggedbad(void){ *(volatile char*)0xab00000000000010UL; }
#endif
#if defined __x86_64__
#define PC_OF(u) (((ucontext_t*)(u))->uc_mcontext.gregs[REG_RIP])
#else
#define PC_OF(u) (((ucontext_t*)(u))->uc_mcontext.pc)
#endif
static unsigned long return_to;
static void elsewhere(int s, siginfo_t *i, void *u){ PC_OF(u)=return_to; }
static void returns(unsigned long pc){ return_to=pc; struct sigaction a={0}; a.sa_sigaction=elsewhere; a.sa_flags=SA_SIGINFO; sigaction(SIGUSR1,&a,0); raise(SIGUSR1); }
static void return0(void){ returns(0); } /* a handler returns to nowhere */
static void return4(void){ returns(4); }
static void return_high(void){ returns(0xffffffffffffffe0UL); }
static void zombieproc(void){ /* every file of a zombie in /proc */
 static const char *names[]={"auxv","children","clear_refs","cmdline","comm","coredump_filter","environ","limits","maps","mem","mountinfo","mounts","mountstats","numa_maps","oom_adj","oom_score","oom_score_adj","pagemap","personality","smaps","smaps_rollup","stat","statm","status","syscall","wchan"};
 int pid=fork(); if(!pid) _exit(0); siginfo_t si; waitid(P_PID, pid, &si, WEXITED|WNOWAIT);
 for(unsigned i=0;i<sizeof names/sizeof*names;i++){ char path[99], buf[4096]; snprintf(path, 99, "/proc/%d/%s", pid, names[i]);
  int fd=open(path, O_RDONLY), r=fd<0?-errno:0, n=0; if(fd>=0){ n=read(fd, buf, 4096); n=n<0?-errno:n>0; close(fd);}
  int w=open(path, O_WRONLY), rw=w<0?-errno:0, nw=0; if(w>=0){ nw=write(w, "1", 1); if(nw<0) nw=-errno; close(w);}
  printf("  %s %d %d, %d %d\n", names[i], r, n, rw, nw);} fflush(stdout); _exit(0);}
#define C(x) {#x,x}
static struct {const char*n; void(*f)(void);} cases[]={C(fds),C(sigpipe),C(epipe),C(sigrec),C(segvrec),C(segvnodefer),C(textwrite),C(smash_sp),C(badjump),C(noncanon),C(noncanonread),C(kread),C(topread),C(lastpage),C(nulljump),C(misal),C(smc2),C(stackbomb),C(killself),C(forkbomb),C(churn),C(threadsig),C(rlimstack),C(unmapself),C(unmapstack),C(unmapall),C(altbad),
#if defined __x86_64__
C(hlt),C(in_al),C(out_al),C(wrmsr),C(rdmsr),C(iretq),C(cli),C(sti),C(int3),C(int1),C(int4),C(int20),C(int255),C(ud2),C(lgdt),C(movcr3),C(rdcr0),C(movdr),C(sysret),C(sysexit),C(swapgs),C(invlpg),C(wbinvd),C(clts),C(ltr),C(div0),C(into64),C(push_es),C(popf_tf),C(popf_ac),C(xchgpfx),C(longinsn),C(fpu_fault),C(movss_ds),C(movds),C(monitor),C(vmcall),C(rsm),C(noncanon_store),C(movfs),C(int80),C(sysenter),C(vsysjump),C(vsysread),
#else
C(smc),C(hvc),C(msr_ttbr),C(mrs_sctlr),C(mrs_ctr),C(mrs_midr),C(dc_civac0),C(dc_zva0),C(dc_ivac),C(ic_ivau0),C(ic_iallu),C(brk0),C(brk1000),C(hlt0),C(udf),C(eret),C(wfi),C(wfe),C(sevl),C(svc1),C(msr_daif),C(mrs_cntvct),C(mrs_cntpct),C(mrs_pmccntr),C(dcps1),C(tlbi),C(mrs_pan),C(msr_fpcr),C(mrs_idisar),C(sve),C(isb),C(ldxr_mis),C(pcmis),C(spmis),C(tagged),C(taggedbad),
#endif
C(return0),C(return4),C(return_high),C(zombieproc),
};
int main(int argc,char**argv){ mount("proc","/proc","proc",0,0);
 for(unsigned i=0;i<sizeof cases/sizeof*cases;i++){ if(argc>1&&strcmp(argv[1],cases[i].n)) continue;
  for(int handled=0;handled<2;handled++){
   if(handled && i<27 && cases[i].f!=badjump && cases[i].f!=noncanon && cases[i].f!=noncanonread&& cases[i].f!=kread&& cases[i].f!=topread&& cases[i].f!=lastpage&& cases[i].f!=textwrite && cases[i].f!=nulljump) continue;
   fflush(stdout); int pid=fork(); if(!pid){ setpgid(0,0); alarm(60); if(handled){ static char st[65536]; stack_t s={st,0,65536}; sigaltstack(&s,0); struct sigaction a={0}; a.sa_sigaction=on_sig; a.sa_flags=SA_SIGINFO|SA_ONSTACK; int l[]={4,5,7,8,11}; for(int k=0;k<5;k++) sigaction(l[k],&a,0);} cases[i].f(); _exit(77);} int st; waitpid(pid,&st,0);
   printf("%s: %s %d\n", cases[i].n, WIFSIGNALED(st)?"signal":"exit", WIFSIGNALED(st)?WTERMSIG(st):WEXITSTATUS(st)); } }
 return 0; }
