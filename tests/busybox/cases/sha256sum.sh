exec 2>&1
cd /tmp
seq 1 20000 > numbers
sha256sum numbers
sha1sum < numbers
md5sum numbers
sha512sum numbers | cut -c1-64
sha256sum numbers > sums && sha256sum -c sums
wc -c numbers
