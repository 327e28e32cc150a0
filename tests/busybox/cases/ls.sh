exec 2>&1
mkdir -p /tmp/d/sub
cd /tmp/d
echo hello > file
dd if=/dev/zero of=big bs=1000 count=300 2>/dev/null
ln -s file link
ln file hard
mkfifo pipe
chmod 4751 file
chmod 1777 sub
touch -d '2020-01-02 03:04:05' file sub pipe big
touch -h -d '2021-02-03 04:05:06' link
ls -ln file big link hard pipe
ls -lnd sub
ls -1F
ls -a
ls -l /none 2>&1
ls -ln /proc/self/exe | awk '{print $1, $9, $10, $11}'
ls -ln /dev/null /dev/zero /dev/full | awk '{print $1, $5, $6, $NF}'
stat -c '%n %s %b %B %h %a %F %u %g' file big link sub pipe
