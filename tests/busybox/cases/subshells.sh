exec 2>&1
x=1; (x=2; echo inside $x); echo outside $x
y=$(echo nested $(echo twice $(echo thrice)))
echo $y
(exit 3); echo $?
(cd /tmp; pwd); pwd
sh -c 'echo $0 $1; exit 7' name arg; echo $?
(trap 'echo bye' EXIT; echo hi)
a=`echo back`; echo $a
{ echo grouped; } > /tmp/g; cat /tmp/g
(sleep 0.01; echo late) | cat
sh -c 'kill -TERM $$'; echo $?
sh -c 'kill -SEGV $$' 2>/dev/null; echo $?
nosuchcommand 2>/dev/null; echo $?
exec 3> /tmp/three; echo to three >&3; exec 3>&-; cat /tmp/three
sh -c 'ulimit -n 20; ulimit -n'
umask 027; : > /tmp/masked; stat -c %a /tmp/masked
