exec 2>&1
cd /tmp
seq 1 20000 > n
cp n m
gzip n
stat -c %s n.gz
gzip -t n.gz && echo good
zcat n.gz | md5sum
gunzip n.gz
cmp n m && echo same
gzip -c -9 m | gunzip -c | cmp - m && echo same
head -c 10 /dev/zero | gzip | gzip -d | od -c
echo junk > j.gz; gunzip j.gz 2>&1; echo status $?
bzip2 -c m | bunzip2 | cmp - m && echo bz2
