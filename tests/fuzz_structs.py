"""What the fuzzers (fuzz_calls.py, fuzz_engine.py) need to get deep: descriptors of every kind, structures, variants.

`SETUP` are calls a world begins with; what they return moves to the descriptor after `>`. `STRUCTS` are structures
whose fields are "size in bytes:word". `VARIANTS` are calls; a call may stand there more than once. Words are those of
fuzz_calls.SPECS, and

    q   a socket        u   a futex               C, c   where the number of a context of io_setup() stands, the number
    @x  address of the structure x, newly made    'x     address of the text x, ~ for a space

Descriptors: 40 TCP listening, 41 and 42 connected, 43 UDP, 44 UDP on IPv6, 45 NETLINK_ROUTE, 46 NETLINK_USERSOCK,
47 UDP, 48 AF_UNIX datagrams, 49 a performance event, 50 a context of tmpfs, 51 a tree of mounts, 52 eventfd, 53 epoll,
54 timerfd, 55 a message queue, 57 pidfd, 58 to 63 namespaces, 65 timens_offsets, 66 KSM.
"""

from __future__ import annotations


def _entries(text: str) -> list[list[str]]:
    return [entry.split() for entry in text.split(";") if entry.strip()]


SETUP = _entries("""
    socket 2 0x801 0 > 40; bind 40 @loopback 16; listen 40 8; socket 2 1 0 > 41; connect 41 @loopback 16;
    accept4 40 0 0 0 > 42; socket 2 2 0 > 43; bind 43 @loopback 16; connect 43 @loopback 16; socket 10 2 0 > 44;
    socket 16 3 0 > 45; socket 16 3 2 > 46; bind 46 @netlink 12; socket 2 2 0 > 47; socket 1 2 0 > 48;
    perf_event_open @perf0 0 -1 -1 0 > 49; fsopen 'tmpfs 0 > 50; fsconfig 50 6 0 0 0; fsmount 50 0 0 > 51;
    fsopen 'tmpfs 0 > 50; eventfd2 0 0 > 52; epoll_create1 0 > 53; timerfd_create 1 0 > 54;
    mq_open 'queue 0x842 0x180 0 > 55; getpid > -1; pidfd_open 1 0 > 57;
    openat -100 '/proc/self/ns/pid 0 0 > 58; openat -100 '/proc/self/ns/net 0 0 > 59;
    openat -100 '/proc/self/ns/time 0 0 > 60; openat -100 '/proc/self/ns/mnt 0 0 > 61;
    openat -100 '/proc/self/ns/ipc 0 0 > 62; openat -100 '/proc/self/ns/uts 0 0 > 63;
    openat -100 '/proc/self/timens_offsets 2 0 > 65; openat -100 '/sys/kernel/mm/ksm/run 2 0 > 66; io_setup 8 C
""")

STRUCTS = {
    words[0]: words[1:]
    for words in _entries("""
    loopback 2:2 2:0x3905 4:0x100007f 8:0; netlink 2:16 2:0 4:77 4:0; perf0 4:1 4:120 8:0 8:0 8:0 8:0 8:0x20 72:0;
    in 2:{2,2,0,1,10} 2:{0x3905,0x3905,0,n} 4:{0x100007f,0,n,w} 8:0;
    in6 2:{10,10,2} 2:{0x3905,0,n} 4:0 8:0 2:0 2:{0xffff,0} 4:{0x100007f,0x1000000,0} 4:{0,1,n};
    un 2:1 4:{0x6100,0x6200,0} 4:0 6:0; nl 2:{16,16,n} 2:0 4:{0,77,77,n} 4:{0,0,1,n};
    nlmsg 4:{20,32,36,40,s} 2:{16,18,19,22,26,20,21,30,n} 2:{1,5,0x301,0x305,0x401,n} 4:n 4:0 1:{0,2,10} 3:0
        4:{0,1,2,-1} 4:{0,1,n} 4:{0,1,-1} 2:{8,7,4,0,3} 2:{3,n} 4:{0x6f6c,n};
    ifreq 8:{0x6f6c,0x6f6c,0x306f6c,0x3a6f6c,w} 8:0 8:{0,1,n} 8:0 8:0; ifconf 4:{40,80,0,-1,s} 4:0 8:{0,p};
    int 4:{0,1,1,-1,n,s,100} 4:{0,1,n} 8:{0,n}; linger 4:{0,1} 4:{0,1,-1,n}; timeval 8:{0,0,1,n,w} 8:{0,1000,n,w};
    cmsg 8:{16,18,20,24,28,s} 4:{1,0,17,41} 4:{1,2,103,8,50,n} 4:{f,n,100} 4:f 8:n;
    msghdr 8:{0,@in,@in6,@nl,@un} 4:{0,16,12,28,n} 4:0 8:{@iov,@iov,v} 8:{0,1,1,1,2,16} 8:{0,@cmsg,p}
        8:{0,16,18,20,24,s} 8:0;
    mmsghdr 8:{0,@in} 4:{0,16} 4:0 8:{@iov,v} 8:{0,1} 8:{0,@cmsg} 8:{0,20} 8:0 8:0 8:{0,@nl} 4:{0,12} 4:0 8:@iov 8:1
        8:0 8:0 8:0 8:0;
    iocb 8:w 4:0 4:{0,0,1,8,16,n} 2:{0,1,2,3,5,5,7,8} 2:{0,0x2000,0x6000,n} 4:f 8:{p,v,0,1,4} 8:{s,0,0,8,1,4}
        8:{0,0,4096,s,w} 8:0 4:{0,0,1,2,3} 4:{52,52,f};
    iopoll 8:w 4:0 4:0 2:5 2:0 4:{q,52,54,55,3} 8:{1,4,5,0x41} 8:0 8:0 8:0 4:{0,1} 4:52;
    iorw 8:w 4:0 4:0 2:{0,1,2,3} 2:0 4:{q,3,4,6,52} 8:{@good,0} 8:{1,8,0} 8:0 8:0 4:{0,1} 4:52; good 8:n 8:n 64:0;
    iocbs 8:{@iopoll,@iocb,@iorw} 8:{@iopoll,@iorw,@iocb} 8:{@iocb,@iopoll,p} 8:{@iocb,0};
    perf 4:{1,1,1,1,0,2,5} 4:{0,64,72,112,120,120,128,s} 8:{0,1,2,3,4,5,6,7,8,9,10,n} 8:{0,0,0,1,n,w} 8:{0,0,0,16,n}
        8:{0,1,2,4,8,15,n} 8:{0x20,0x21,0x60,0x22,0x23,0x1020,0x1022,0x3020,0x200020,n,w} 72:0;
    attr 4:{48,56,0,48,s} 4:{0,0,1,2,3,5,6} 8:{0,0,1,8,16,24,n} 4:{0,-20,19,n} 4:{0,1,50,99,n}
        8:{0,1000000,10000000,s} 8:{0,20000000,s} 8:{0,100000000,s} 8:0;
    param 4:{0,1,50,99,-1,n}; sigevent 8:{p,0} 4:{10,34,45,46,46,f} 4:{0,1,2,2,4} 8:i 32:0;
    mqattr 8:{0,0x800,n} 8:{1,10,n} 8:{1,64,8192,s} 40:0; ts 8:{0,0,0,1,n} 8:{0,1000,1000000,999999999,n};
    owner 4:{0,1,2,n} 4:i; iov 8:{@good,@good,p} 8:{0,8,16,64,264,s}; pollfd 4:q 4:{1,3,5,0x41} 4:q 4:{1,4,n};
    hwdebug 4:0 4:0 8:{p,a,0} 4:{0,0x1fe5,0x1ff5,0x1fe7,0x25,n} 4:0 8:p 4:{0,n} 4:0;
    clone 8:{0,0x100,0x20000000,0x40000000,0x80,0x20000,0x8000000,0x68020000,0x1100,0x200000000,0x20000080,w} 8:p 8:p
        8:p
        8:{17,17,0,34,n} 8:0 8:0 8:0 8:{0,0,p} 8:{0,0,1,2} 8:{0,57}
    """)
}

VARIANTS = _entries("""
    bind q {@in,@in6,@nl,@un} {16,12,28,110}; connect q {@in,@in6,@nl,@un} {16,12,28,110}; listen q {0,1,8,n};
    accept4 q {0,p} {0,p} {0,0x800}; accept q 0 0; shutdown q {0,1,2,3}; getsockname q p p; getpeername q p p;
    socket {2,10,1} {1,2,5,0x801} {0,6,17}; socket 16 {2,3} {0,2,4,15,16}; socketpair 1 {1,2,5} 0 p;
    sendto q {@good,p} {0,1,8,60,s} {0,0,1,0x40,0x4000,0x8000,0x8040,0x41} {0,0,@in,@in6,@nl,@un} {0,16,12,28};
    sendto {45,46} {@nlmsg,p} {20,32,36,40,s} {0,0x40} {0,@nl} {0,12};
    recvfrom q {@good,p} {8,60,s} {0,0x40,0x41,0x42,0x43,0x20,0x60,0x140,0x2000} {0,p} {0,p}; sendmsg q @msghdr
        {0,1,0x40,0x8000};
    recvmsg q @msghdr {0x40,0x42,0x41,0x2040,0x40000040}; sendmmsg q @mmsghdr {1,2,n} {0,0x40,0x8040};
    recvmmsg q @mmsghdr {1,2,n} {0x40,0x10040} {0,@ts}; setsockopt q 1 n {@int,@linger,@timeval} {4,8,16,1,0};
    setsockopt q {0,6,17,41} {n,n,1,103} {@int,@int,p} {4,8,1,0}; setsockopt {45,46,q} 270 {1,2,3,4,5,8,10,12,n} @int
        {4,0};
    setsockopt {43,47,44} 17 {1,103,1} @int 4; getsockopt q {0,1,6,17,41,270} n p {p,@int};
    ioctl q {0x8901,0x8902,0x8903,0x8904,0x8905,0x8906,0x8907,0x8910,0x8912,0x8913,0x8914,0x8915,0x8919,0x891b}
        {@ifreq,@ifconf};
    ioctl q {0x891d,0x8921,0x8927,0x8933,0x8942,0x8970,0x894c,0x541b,0x5411,0x5452,0x5421} {@ifreq,@int};
    fcntl {q,f} 4 {0x2000,0x2800,0}; fcntl {q,f} 10 g; fcntl {q,f} 8 {i,n}; fcntl {q,f} 15 @owner; fcntl {q,f} 16 p;
    poll @pollfd {1,2} {0,1}; read {q,f} p {1,8,4096,s}; write {q,f} p {1,8,4096,s}; splice {q,f} 0 {q,f} 0 s {0,2};
    sendfile q f {0,p} s; epoll_ctl 53 {1,2,3} {q,f} p; close {f,50,51,49};
    io_setup {1,8,100,n,0x10000,-1} C; io_submit c {1,2,3,4,n} @iocbs; io_submit c 1 @iocbs;
    io_cancel c {@iocb,p} p; io_getevents c {0,0,1,n} {1,4,n} p {@ts,@ts,0}; io_destroy c;
    io_pgetevents c {0,1} {1,4,n} p {@ts,0} {0,@iov}; mremap a l l {1,3} a; munmap c l; mprotect c l {0,1,3};
    perf_event_open @perf {0,0,-1,i} {-1,-1,0,n} {-1,-1,49,f} {0,0,1,2,4,8};
    ioctl {49,f} {0x2400,0x2401,0x2402,0x2403,0x80082407,0x40082404,0x2405,0x40082406,0x40042408,0x2409}
        {0,1,p,49,@int};
    read 49 p {8,16,24,32,64,s}; prctl {31,32} 0 0 0 0; prctl 36 {0,1} 0 0 0;
    fsopen {'tmpfs,'tmpfs,'proc,'mqueue,'sysfs,'ramfs,'devpts,'hugetlbfs,'cgroup,'devtmpfs,t} {0,1};
    fsconfig {50,f} {0,1,1,1,2,3,4,5,6,6,7,n}
        {0,0,'size,'mode,'source,'nr_inodes,'nr_blocks,'huge,'ro,'uid,'gid,'hidepid,'subset,'pagesize,'min_size,'mpol,t}
        {0,0,'1,'4m,'1777,'always,'0,'-1,'xyz,'100%,'18446744073709551615,'prefer:0,'interleave:0,'pid,'2M,t}
        {0,0,0,8,f};
    fsconfig 50 0 {'ro,'rw,'sync,'xyz} 0 0; fsconfig 50 6 0 0 0; fsconfig {50,f} 7 0 0 0; fsmount 50 0 {0,1,2};
    fsconfig 50 1 {'size,'mode,'nr_inodes,'huge,'source,'uid,t} {'4m,'1,'0,'50%,'always,'-1,'xyz,t} 0;
    fsmount {50,f} {0,1} {0,1,2,4,8,0x10,0x20,0x80,n}; fspick d t {0,1,2,8}; open_tree {-100,51,f} t
        {0,1,0x8001,0x1000,0x9001};
    open_tree {51,f} ' {0x1001,0x9001}; move_mount {51,f} ' -100 t {4,0x44,0x14}; move_mount d t d t {0,4,0x44,0x100};
    mount {0,'none,t} t {'tmpfs,'proc,'mqueue,'sysfs,'ramfs,'devpts,'hugetlbfs,t} {0,0,1,2,4,8,0x400,0x1000000}
        {0,0,'size=1m,'nr_inodes=5,'mode=700,'hidepid=2,'pagesize=2M,'huge=always,'ptmxmode=666,'xyz};
    mount t t 0 {0x1000,0x5000,0x2000} 0; mount 0 t 0 {0x100000,0x104000,0x80000,0x40000,0x44000,0x20000,0x120000} 0;
    mount 0 t 0 {32,33,0x1021,0x1020} {0,'size=2m,'mode=1,'xyz}; umount2 t {0,1,2,4,8,10}; pivot_root t t;
    unshare {0x20000000,0x40000000,0x80,0x20000,0x8000000,0x4000000,0x68020080,0x20200}; setns {58,59,60,61,62,63,57}
        {0,0,0x20000000,0x40000000,0x80,0x20000,0x68020000};
    clone {0x20000011,0x40000011,0x20011,0x8000011,0x4000011,0x60020011,0x100,0x111,0x50f00,0x3d0f00,0x4111} {0,p} p
        p p;
    clone3 @clone {64,80,88,88}; ioctl {58,59,60,61,62,63} {0xb701,0xb702,0xb703,0xb704} p; reboot 0xfee1dead
        672274793 {0xcdef0123,0x1234567,0} 0;
    write 65 {'monotonic~1~0,'boottime~-5~0,'1~99999999999~0,'7~1~999999999,'x} {13,14,17,5,s}; sethostname t
        {0,1,64,65};
    sched_setscheduler i {0,1,2,3,5,0x40000001} @param; sched_setattr i @attr 0; sched_setparam i @param; sched_yield;
    sched_rr_get_interval i p; sched_getattr i p {48,56,s} 0; nanosleep @ts 0;
    mq_open {'queue,'other,t} {0x42,0x842,2,0,1,0x802} 0x180 {0,@mqattr}; mq_notify {55,f} {0,@sigevent,@sigevent};
    mq_timedsend {55,f} p {0,1,8,64} {0,1,n} {0,@ts}; mq_timedreceive {55,f} p {8192,64,s} {0,p} {0,@ts};
    mq_getsetattr {55,f} {0,@mqattr} {0,p}; mq_unlink {'queue,'other,t};
    futex u {6,7,8,134,135,136} {0,1,n} {0,@ts,@ts} u n; futex u {11,139,0,128,9} {0,0,n} {0,@ts,@ts} u -1;
    futex u {12,140,3,4,131,132,5,133} {0,1,1,n} {0,1,n} u {0,0,n}; set_robust_list {p,u} 24;
    madvise a l {12,12,13}; write 66 {'1,'1,'0,'2,'9} 1; prctl {67,68} {0,1} 0 0 0;
    ptrace {0x4206,0x4206,0,16,0x4207,7,24,9,0x4208,17,0x4200} i {0,1} {0,1,0x3000ff,g,n};
    ptrace {3,6} i {848,856,864,872,880,888,896,904,0,8,a,n} {0,1,0x101,0x501,0xd0001,0x90001,a,w};
    ptrace {0x4204,0x4205} i {1,2,0x202,0x402,0x403,0x404,0x405,0x401,n} @iov;
    ptrace {0x4202,0x4203,0x4209,0x420a,0x420b,0x420e,12,13,1,4} i {8,p,a} {p,@iov,w}; kill i {19,18,5,10}
""")
