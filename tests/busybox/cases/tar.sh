exec 2>&1
mkdir -p /tmp/t/in/deep /tmp/t/out
cd /tmp/t
seq 1 5000 > in/numbers
echo small > in/deep/small
ln -s numbers in/link
ln in/numbers in/hard
: > in/empty
chmod 600 in/deep/small
tar cf a.tar in
tar tf a.tar | sort
tar xf a.tar -C out
diff -r in out/in && echo same
stat -c '%a %h' out/in/deep/small out/in/numbers
readlink out/in/link
tar cf - in | gzip > a.tgz && zcat a.tgz | tar tf - | wc -l
rm -r out/in && zcat a.tgz | tar xf - -C out && cmp in/numbers out/in/numbers && echo same again
