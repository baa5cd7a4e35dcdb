/*
 * Holds the namespaces of a pod: sleeps, reaps what is left to it, ends when told to. With -v it says what it is and
 * ends, as upstream's does: kubeadm runs that as a Job to see whether a cluster's Jobs complete (CreateJob).
 */
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }

static void reap(int number)
{
	(void)number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(int count, char **arguments)
{
	static const char told[] = "pause of the lab\n";

	const struct sigaction ending = { .sa_handler = end };
	const struct sigaction reaping = { .sa_handler = reap, .sa_flags = SA_NOCLDSTOP };

	if (count > 1 && !strcmp(arguments[1], "-v"))
		return write(STDOUT_FILENO, told, sizeof told - 1) < 0;
	if (sigaction(SIGINT, &ending, NULL) || sigaction(SIGTERM, &ending, NULL) || sigaction(SIGCHLD, &reaping, NULL))
		return 1;
	for (;;)
		pause();
}
