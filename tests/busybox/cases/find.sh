exec 2>&1
mkdir -p /tmp/f/a/b/c /tmp/f/d
for i in 1 2 3 4 5; do echo $i > /tmp/f/a/b/file$i.txt; done
: > /tmp/f/d/empty
ln -s ../a /tmp/f/d/link
cd /tmp
find f | sort
find f -type f -name '*[24].txt' | sort
find f -type d -print0 | tr '\0' ' ' | tr ' ' '\n' | sort
find f -size 0 -type f
find f -type l -exec readlink {} \;
find f -name '*.txt' -exec cat {} + | sort -r
find f -depth -name c -exec rmdir {} \;
find f -type f -exec rm {} +
find f | sort
