exec 2>&1
echo one two three | tr ' ' '\n' | sort -r | head -2 | wc -l
seq 1 20000 | tail -1
yes | head -3
seq 10 | while read n; do echo -n "$n "; done; echo
{ echo a; echo b >&2; } 2>&1 | sort
seq 5 | tee /tmp/tee | paste -s -d,
cat /tmp/tee | xargs echo args:
seq 1 3 | xargs -n1 sh -c 'echo got $0'
false | true; echo $?
true | false; echo $?
echo pipe > /tmp/p & wait; cat /tmp/p
mkfifo /tmp/fifo; (echo through a fifo > /tmp/fifo) & cat /tmp/fifo; wait
