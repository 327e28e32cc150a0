exec 2>&1
uname -srm
id
hostname
pwd
tty
echo $PPID | grep -c .
tr '\0' ' ' < /proc/$$/cmdline; echo
readlink /proc/self/exe
head -c 16 /dev/urandom | wc -c
dd if=/dev/zero bs=4096 count=3 2>/dev/null | wc -c
echo x > /dev/full; echo $?
cat /dev/null | wc -c
expr 6 \* 7
env -i A=b env
date -u -d @86400 '+%Y-%m-%d %H:%M:%S'
grep -c . /proc/self/maps
test -x /busybox && echo executable
cp /busybox /tmp/busybox && /tmp/busybox echo a copy runs
busybox_copy=/tmp/busybox; $busybox_copy true; echo $?
