/*
 * The process that holds a pod's namespaces open: it is process 1 where pods
 * share their processes, so it also collects the orphans that end there.
 *
 * No C library: the program is a few hundred bytes of code, and a node keeps
 * one of it in memory for every pod. Signals are never delivered but waited
 * for, so no handler is needed.
 */

#if defined(__x86_64__)
enum { NR_RT_SIGPROCMASK = 14, NR_WAIT4 = 61, NR_RT_SIGTIMEDWAIT = 128, NR_EXIT_GROUP = 231 };
#elif defined(__aarch64__)
enum { NR_RT_SIGPROCMASK = 135, NR_WAIT4 = 260, NR_RT_SIGTIMEDWAIT = 137, NR_EXIT_GROUP = 94 };
#else
#error "pause: system call numbers of this architecture are not known"
#endif

enum { SIG_INT = 2, SIG_TERM = 15, SIG_CHLD = 17 };
enum { SIG_SETMASK_HOW = 2, WAIT_NO_HANG = 1, ANY_CHILD = -1 };

static long system_call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	register long fourth __asm__("r10") = d;
	long result;
	__asm__ volatile("syscall"
		: "=a"(result)
		: "0"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
		: "rcx", "r11", "memory");
	return result;
#else
	register long number_register __asm__("x8") = number;
	register long first __asm__("x0") = a;
	register long second __asm__("x1") = b;
	register long third __asm__("x2") = c;
	register long fourth __asm__("x3") = d;
	__asm__ volatile("svc 0"
		: "+r"(first)
		: "r"(number_register), "r"(second), "r"(third), "r"(fourth)
		: "memory");
	return first;
#endif
}

__attribute__((noreturn)) static void quit(long code)
{
	for (;;)
		system_call(NR_EXIT_GROUP, code, 0, 0, 0);
}

#if defined(__x86_64__)
/* The kernel enters with a stack that no call has pushed on. */
__attribute__((force_align_arg_pointer))
#endif
__attribute__((noreturn, used)) void _start(void)
{
	unsigned long waited =
		1UL << (SIG_INT - 1) | 1UL << (SIG_TERM - 1) | 1UL << (SIG_CHLD - 1);
	long result = system_call(NR_RT_SIGPROCMASK, SIG_SETMASK_HOW, (long)&waited, 0, sizeof(waited));
	if (result < 0)
		quit(1);
	for (;;) {
		long received = system_call(NR_RT_SIGTIMEDWAIT, (long)&waited, 0, 0, sizeof(waited));
		if (received == SIG_INT || received == SIG_TERM)
			quit(0);
		/* One SIGCHLD may stand for several children; also after EINTR. */
		while (system_call(NR_WAIT4, ANY_CHILD, 0, WAIT_NO_HANG, 0) > 0)
			;
	}
}
