/* SPDX-License-Identifier: GPL-2.0-only */
/* Pseudo-terminals: settings, the line discipline byte by byte, packet mode, locks and hangups. */
#include "guest.h"

enum { CALL(ioctl, 16, 29), CALL(mkdirat, 258, 34), CALL(mount, 165, 40), CALL(ppoll, 271, 73), CALL(fstat, 5, 80) };
enum {
	TCGETS = 0x5401, TCSETS, TCSETSW, TCSETSF, TCGETA, TCSETA, TCSBRK = 0x5409, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL,
	TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCOUTQ, TIOCSTI, TIOCGWINSZ, TIOCSWINSZ, TIOCMGET, TIOCGSOFTCAR = 0x5419,
	TIOCSSOFTCAR, FIONREAD, TIOCGSERIAL = 0x541e, TIOCPKT = 0x5420, TIOCNOTTY = 0x5422, TIOCSETD, TIOCGETD, TCSBRKP,
	TIOCSBRK = 0x5427, TIOCCBRK, TIOCGSID, TIOCGPTPEER = 0x5441, TIOCGLCKTRMIOS = 0x5456, TIOCSLCKTRMIOS,
	TIOCGICOUNT = 0x545d, FIOQSIZE = 0x5460,
};
#define TCGETS2 0x802C542Aul
#define TCSETS2 0x402C542Bul
#define TIOCGPTN 0x80045430ul
#define TIOCSPTLCK 0x40045431ul
#define TIOCGDEV 0x80045432ul
#define TIOCGPKT 0x80045438ul
#define TIOCGPTLCK 0x80045439ul
#define TIOCGEXCL 0x80045440ul
#define TIOCSIG 0x40045436ul
enum { O_NONBLOCK = 04000, O_NOCTTY = 0400 };
enum { ISTRIP = 040, INLCR = 0100, IGNCR = 0200, ICRNL = 0400, IUCLC = 01000, IXON = 02000, IXANY = 04000, PARMRK = 010,
	IUTF8 = 040000 };
enum { OPOST = 1, OLCUC = 2, ONLCR = 4, OCRNL = 010, ONOCR = 020, ONLRET = 040, XTABS = 014000 };
enum { ISIG = 1, ICANON = 2, ECHO_ = 010, ECHOE = 020, ECHOK = 040, ECHONL = 0100, NOFLSH = 0200, ECHOCTL = 01000,
	ECHOPRT = 02000, ECHOKE = 04000, IEXTEN = 0100000, EXTPROC = 0200000 };
enum { VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN, VSWTC, VSTART, VSTOP, VSUSP, VEOL, VREPRINT, VDISCARD, VWERASE,
	VLNEXT, VEOL2 };

struct termios {
	u32 i, o, c, l;
	u8 line, cc[19];
	u32 ispeed, ospeed;
};
struct pollfd {
	int fd;
	short events, revents;
};

static long master, slave;
static struct termios standard;
static char buffer[16384];

static void show(const char *data, long n)
{
	put('"');
	for (long i = 0; i < n; i++) {
		u8 c = data[i];

		if (c == '"' || c == '\\')
			put('\\');
		if (c >= 32 && c < 127)
			put(c);
		else
			say("\\x%c%c", "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]);
	}
	put('"');
}
static void show_read(const char *who, long fd, long size)
{
	long n = sys(read, fd, buffer, size);

	say(" %s ", who);
	if (n < 0)
		say("%d", n);
	else
		show(buffer, n);
}
static void settle(void)
{
	sleep_ms(20); /* the kernel moves bytes between the two sides from a work queue */
}
static void type(const char *text)
{
	long n = 0;

	while (text[n])
		n++;
	sys(write, master, text, n);
	settle();
}
static long poll_one(long fd)
{
	struct pollfd p = { fd, 0x7fff, 0 };
	long none[2] = { 0, 0 };

	sys(ppoll, &p, 1, none, 0, 0);
	return p.revents;
}
static void open_pair(void)
{
	int zero = 0, index = -1;

	master = sys(openat, AT_FDCWD, "/dev/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
	CHECK(master >= 0);
	sys(ioctl, master, TIOCGPTN, &index);
	sys(ioctl, master, TIOCSPTLCK, &zero);
	slave = sys(ioctl, master, TIOCGPTPEER, O_RDWR | O_NONBLOCK | O_NOCTTY);
	CHECK(slave >= 0);
	sys(ioctl, slave, TCGETS2, &standard);
}
static void set(const struct termios *t)
{
	CHECK(sys(ioctl, slave, TCSETS2, t) == 0);
}
/* Type `text` with some flags switched, read both sides until nothing is left. */
static void trial(const char *name, u32 i, u32 o, u32 l, const char *text)
{
	struct termios t = standard;
	int left = 0;

	t.i ^= i;
	t.o ^= o;
	t.l ^= l;
	set(&t);
	type(text);
	sys(ioctl, slave, FIONREAD, &left);
	say("%s %x %x %x ", name, (ulong)i, (ulong)o, (ulong)l);
	show(text, 0);
	say(" fionread %d poll %x/%x", (long)left, poll_one(slave), poll_one(master));
	show_read("echo", master, sizeof buffer);
	for (int n = 0; n < 4; n++)
		show_read("read", slave, sizeof buffer);
	say("\n");
	set(&standard);
	sys(ioctl, slave, TCFLSH, 2);
	settle();
	while (sys(read, master, buffer, sizeof buffer) > 0)
		;
}
static void output(const char *name, u32 o, const char *text)
{
	struct termios t = standard;
	long n = 0;

	t.o = o;
	set(&t);
	while (text[n])
		n++;
	say("%s %x: %d", name, (ulong)o, sys(write, slave, text, n));
	settle();
	show_read("out", master, sizeof buffer);
	say("\n");
	set(&standard);
}

static void settings(void)
{
	struct termios t;
	u8 old[20];
	int number = 77;
	short window[4] = { 24, 80, 1, 2 };

	for (int side = 0; side < 2; side++) {
		long fd = side ? slave : master;

		say("side %d", (long)side);
		memset(&t, 0, sizeof t);
		say(" tcgets2 %d %x %x %x %x line %d speed %d %d cc", sys(ioctl, fd, TCGETS2, &t), (ulong)t.i, (ulong)t.o, (ulong)t.c,
		    (ulong)t.l, (long)t.line, (long)t.ispeed, (long)t.ospeed);
		for (int n = 0; n < 19; n++)
			say(" %x", (ulong)t.cc[n]);
		memset(&t, 0, sizeof t);
		say("\n tcgets %d %x %x %x %x", sys(ioctl, fd, TCGETS, &t), (ulong)t.i, (ulong)t.o, (ulong)t.c, (ulong)t.l);
		memset(old, 0xee, sizeof old);
		say(" tcgeta %d", sys(ioctl, fd, TCGETA, old));
		for (int n = 0; n < 18; n++)
			say(" %x", (ulong)old[n]);
		say("\n winsize %d", sys(ioctl, fd, TIOCGWINSZ, window));
		for (int n = 0; n < 4; n++)
			say(" %d", (long)window[n]);
		window[0] = 24, window[1] = 80 + side;
		say(" set %d", sys(ioctl, fd, TIOCSWINSZ, window));
		say(" outq %d", sys(ioctl, fd, TIOCOUTQ, &number));
		say(" %d getd %d", (long)number, sys(ioctl, fd, TIOCGETD, &number));
		say(" %d dev %d", (long)number, sys(ioctl, fd, TIOCGDEV, &number));
		say(" %x softcar %d", (ulong)number & 0xffff00, sys(ioctl, fd, TIOCGSOFTCAR, &number));
		say(" %d mget %d icount %d serial %d sbrk %d cbrk %d sbrk %d brkp %d qsize %d", (long)number,
		    sys(ioctl, fd, TIOCMGET, &number), sys(ioctl, fd, TIOCGICOUNT, buffer), sys(ioctl, fd, TIOCGSERIAL, buffer),
		    sys(ioctl, fd, TIOCSBRK, 0), sys(ioctl, fd, TIOCCBRK, 0), sys(ioctl, fd, TCSBRK, 0), sys(ioctl, fd, TCSBRKP, 0),
		    sys(ioctl, fd, FIOQSIZE, buffer));
		number = 5;
		say(" setd %d", sys(ioctl, fd, TIOCSETD, &number));
		say(" gpgrp %d gsid %d notty %d", sys(ioctl, fd, TIOCGPGRP, &number), sys(ioctl, fd, TIOCGSID, &number),
		    sys(ioctl, fd, TIOCNOTTY, 0));
		number = 1;
		say(" spgrp %d", sys(ioctl, fd, TIOCSPGRP, &number));
		say(" ptn %d lck %d", sys(ioctl, fd, TIOCGPTN, &number), sys(ioctl, fd, TIOCGPTLCK, &number));
		say(" peer %d sig %d unknown %d seek %d", side ? sys(ioctl, fd, TIOCGPTPEER, O_RDWR) : 0, sys(ioctl, fd, TIOCSIG, 99),
		    sys(ioctl, fd, 0x5499, 0), sys(ioctl, fd, TIOCGLCKTRMIOS, buffer));
		say(" flush %d %d %d %d flow %d %d %d bad %d fault %d %d\n", sys(ioctl, fd, TCFLSH, 0), sys(ioctl, fd, TCFLSH, 1),
		    sys(ioctl, fd, TCFLSH, 2), sys(ioctl, fd, TCFLSH, 3), sys(ioctl, fd, TCXONC, 0), sys(ioctl, fd, TCXONC, 1),
		    sys(ioctl, fd, TCXONC, 4), sys(ioctl, fd, TCGETS, 1), sys(ioctl, fd, TCSETS, 1), sys(ioctl, fd, TIOCSWINSZ, 1));
	}
	sys(ioctl, slave, TCXONC, 1); /* the order of the calls above is the compiler's */
	sys(ioctl, master, TCXONC, 1);
	t = standard;
	t.c = 0; /* B0, CS5 */
	set(&t);
	sys(ioctl, slave, TCGETS2, &t);
	say("cflag 0 becomes %x speed %d %d\n", (ulong)t.c, (long)t.ispeed, (long)t.ospeed);
	t.c = 010000 | 060; /* BOTHER */
	t.ispeed = 123, t.ospeed = 4567;
	set(&t);
	sys(ioctl, slave, TCGETS2, &t);
	say("BOTHER becomes %x speed %d %d\n", (ulong)t.c, (long)t.ispeed, (long)t.ospeed);
	t.c = 010002 | 060;
	set(&t);
	sys(ioctl, slave, TCGETS2, &t);
	say("B115200 becomes %x speed %d %d\n", (ulong)t.c, (long)t.ispeed, (long)t.ospeed);
	set(&standard);
}

static void input(void)
{
	trial("plain", 0, 0, 0, "hello\n");
	trial("two lines", 0, 0, 0, "one\ntwo\nthr");
	trial("cr", 0, 0, 0, "a\rb\n");
	trial("eof", 0, 0, 0, "\x04" "ab\x04" "c\n\x04");
	trial("erase", 0, 0, 0, "abc\x7f\x7f" "d\x01\x7f\n");
	trial("erase tab", 0, 0, 0, "ab\tc\x7f\x7f" "d\n");
	trial("kill", 0, 0, 0, "one two\x15three\n");
	trial("werase", 0, 0, 0, "one  two_2 +\x17\x17" "x\n");
	trial("lnext", 0, 0, 0, "a\x16\x03" "b\x16\n" "c\n");
	trial("reprint", 0, 0, 0, "ab\x12" "c\n");
	trial("control", 0, 0, 0, "\x01\x1b[A\x02\n");
	trial("signals", 0, 0, 0, "abc\x03" "def\x1cghi\x1ajkl\n");
	trial("noflsh", 0, 0, NOFLSH, "abc\x03" "def\n");
	trial("no isig", 0, 0, ISIG, "a\x03" "b\n");
	trial("no echo", 0, 0, ECHO_, "abc\x7f" "d\n");
	trial("echonl", 0, 0, ECHO_ | ECHONL, "abc\n");
	trial("no echoe", 0, 0, ECHOE, "abc\x7f" "d\x15" "e\n");
	trial("no echok", 0, 0, ECHOK, "abc\x15" "e\n");
	trial("no echoke", 0, 0, ECHOKE, "abc\x15" "e\n");
	trial("echoprt", 0, 0, ECHOPRT, "abc\x7f\x7f" "d\x17" "e\n");
	trial("no echoctl", 0, 0, ECHOCTL, "a\x01\x7f" "b\x04\n");
	trial("no iexten", 0, 0, IEXTEN, "a b\x17\x16\x12\n");
	trial("raw", 0, 0, ICANON, "ab\ncd\x04\x7f");
	trial("raw quiet", 0, 0, ICANON | ECHO_ | ISIG, "ab\r\ncd\x03");
	trial("extproc", 0, 0, EXTPROC, "ab\x7f\x03\n");
	trial("istrip", ISTRIP, 0, 0, "\xe1\xe2\n");
	trial("inlcr", INLCR, 0, 0, "a\nb\r\n");
	trial("igncr", IGNCR, 0, 0, "a\rb\n");
	trial("no icrnl", ICRNL, 0, 0, "a\rb\n");
	trial("iuclc", IUCLC, 0, 0, "HeLLo\n");
	trial("parmrk", PARMRK, 0, 0, "a\xff" "b\n");
	trial("utf8", IUTF8, 0, 0, "a\xc3\xa4\xe2\x82\xac\x7f\x7f" "b\n");
	trial("not utf8", 0, 0, 0, "a\xc3\xa4\x7f" "b\n");
	trial("xon", 0, 0, 0, "a\x13" "b\n\x11" "c\n");
	trial("xoff", 0, 0, 0, "a\x13" "b\n");
	type("\x11");
	while (sys(read, master, buffer, sizeof buffer) > 0)
		;
	trial("ixany", IXANY, 0, 0, "a\x13" "bc\n");
	trial("no ixon", IXON, 0, 0, "a\x13" "b\n");
	trial("no onlcr", 0, ONLCR, 0, "a\n");
	trial("no opost", 0, OPOST, 0, "a\n\x01");
}

static void reading(void)
{
	struct termios t = standard;
	int left = 0;

	type("hello world\nnext\n");
	show_read("5", slave, 5);
	show_read("0", slave, 0);
	show_read("100", slave, 100);
	show_read("4", slave, 4);
	show_read("4", slave, 4);
	show_read("4", slave, 4);
	type("abcd\x04");
	show_read("exactly before eof", slave, 4);
	show_read("then", slave, 4);
	say("\n");
	type("typed before raw");
	t.l &= ~ICANON;
	set(&t);
	sys(ioctl, slave, FIONREAD, &left);
	say("raw: %d", (long)left);
	show_read("3", slave, 3);
	set(&standard);
	sys(ioctl, slave, FIONREAD, &left);
	say(" canonical again: %d", (long)left);
	show_read("all", slave, 100);
	show_read("more", slave, 100);
	t.cc[VMIN] = 5;
	set(&t);
	type("abc");
	say(" min 5: poll %x", poll_one(slave));
	show_read("3 of 5", slave, 100);
	type("abcdef");
	say(" poll %x", poll_one(slave));
	show_read("6", slave, 100);
	t.cc[VMIN] = 0;
	set(&t);
	show_read("min 0", slave, 100);
	set(&standard);
	say(" sti %d", sys(ioctl, slave, TIOCSTI, "x"));
	sys(ioctl, slave, TIOCSTI, "\n");
	show_read("sti", slave, 100);
	while (sys(read, master, buffer, sizeof buffer) > 0)
		;
	say("\n");
	for (long n = 0; n < 5000; n++)
		buffer[n] = 'a' + n % 26;
	say("long line: %d", sys(write, master, buffer, 5000));
	settle();
	say(" %d", sys(write, master, "!\n", 2));
	settle();
	say(" read %d", sys(read, slave, buffer, sizeof buffer));
	show(buffer + 4085, 11);
	say("\n");
	while (sys(read, master, buffer, sizeof buffer) > 0)
		;
}

static void packets(void)
{
	struct termios t = standard;
	int on = 1;

	say("pkt %d", sys(ioctl, master, TIOCPKT, &on));
	on = 7;
	say(" %d", sys(ioctl, master, TIOCGPKT, &on));
	say(" %d slave %d poll %x", (long)on, sys(ioctl, slave, TIOCPKT, &on), poll_one(master));
	sys(write, slave, "data", 4);
	settle();
	show_read("data", master, 100);
	show_read("none", master, 100);
	sys(ioctl, slave, TCFLSH, 0);
	say(" poll %x", poll_one(master));
	show_read("flush in", master, 100);
	sys(ioctl, slave, TCFLSH, 1);
	show_read("flush out", master, 100);
	sys(ioctl, slave, TCFLSH, 2);
	show_read("flush both", master, 100);
	sys(ioctl, slave, TCXONC, 0);
	show_read("stop", master, 100);
	say(" write while stopped %d", sys(write, slave, "x", 1));
	sys(ioctl, slave, TCXONC, 1);
	show_read("start", master, 100);
	t.i &= ~IXON;
	set(&t);
	show_read("no flow", master, 100);
	set(&standard);
	show_read("flow", master, 100);
	t = standard;
	t.l |= EXTPROC;
	set(&t);
	show_read("extproc", master, 100);
	set(&standard);
	show_read("not extproc", master, 100);
	type("ab\x03");
	show_read("signal", master, 100);
	show_read("echo", master, 100);
	sys(write, slave, "data", 4);
	settle();
	show_read("one byte", master, 1);
	show_read("two bytes", master, 2);
	show_read("rest", master, 100);
	on = 0;
	sys(ioctl, master, TIOCPKT, &on);
	say("\n");
}

static void ends(void)
{
	int one = 1, zero = 0, index = -1;
	char name[] = "/dev/pts/0";
	long second;

	sys(write, slave, "last words\n", 11);
	sys(write, master, "typed\n", 6);
	settle();
	sys(close, slave);
	say("slave closed: poll %x", poll_one(master));
	show_read("read", master, 100);
	show_read("again", master, 100);
	say(" write %d", sys(write, master, "x", 1));
	sys(ioctl, master, TIOCSPTLCK, &one);
	sys(ioctl, master, TIOCGPTN, &index);
	name[9] = '0' + index;
	say(" locked %d", sys(openat, AT_FDCWD, name, O_RDWR, 0));
	say(" peer %d", sys(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
	sys(ioctl, master, TIOCSPTLCK, &zero);
	slave = sys(openat, AT_FDCWD, name, O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
	say(" open %d poll %x", (long)(slave >= 0), poll_one(master));
	show_read("kept", slave, 100);
	sys(ioctl, slave, TIOCEXCL, 0);
	sys(ioctl, slave, TIOCGEXCL, &one);
	second = sys(openat, AT_FDCWD, name, O_RDWR | O_NOCTTY, 0);
	say(" excl %d, root opens %d\n", (long)one, (long)(second >= 0));
	sys(close, second);
	sys(close, master);
	say("master closed: poll %x", poll_one(slave));
	show_read("read", slave, 100);
	say(" write %d ioctl %d %d open %d\n", sys(write, slave, "x", 1), sys(ioctl, slave, TCGETS, buffer),
	    sys(ioctl, slave, TIOCSPGRP, &one), sys(openat, AT_FDCWD, name, O_RDWR, 0));
	sys(close, slave);
	master = sys(openat, AT_FDCWD, "/dev/ptmx", O_RDWR | O_NONBLOCK, 0);
	say("unopened: poll %x", poll_one(master));
	show_read("read", master, 100);
	say(" write %d lock", sys(write, master, "early\n", 6));
	sys(ioctl, master, TIOCGPTLCK, &one);
	sys(ioctl, master, TIOCSPTLCK, &zero);
	settle();
	slave = sys(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
	say(" %d early", (long)one);
	show_read("input", slave, 100);
	show_read("echo", master, 100);
	say("\n");
}

static int run(void)
{
	sys(mkdirat, AT_FDCWD, "/dev/pts", 0755);
	sys(mount, "devpts", "/dev/pts", "devpts", 0, 0);
	open_pair();
	settings();
	input();
	reading();
	output("cooked", OPOST | ONLCR, "a\tb\nc\rd\be\x01\n");
	output("raw", 0, "a\tb\nc\r\n");
	output("tabs", OPOST | XTABS, "a\tbcd\te\b\b\tf\n");
	output("upper", OPOST | OLCUC, "Hello\xe4\n");
	output("ocrnl", OPOST | OCRNL, "a\rb\r\n");
	output("onocr", OPOST | ONOCR, "\ra\r\rb\n");
	output("onlret", OPOST | ONLRET | XTABS, "ab\n\tc\n");
	packets();
	ends();
	return 0;
}
