"""What a User Mode Linux kernel runs when its guest reboots: itself again, without the files it had open.

On a reboot the kernel executes its own argv[0] in the same process, and its descriptors stay open: the tap, which the
next kernel then finds taken ("failed to select tap interface"), and the old memory. So argv[0] is this program, which
the supervisor puts into the state folder; it closes them and goes on to the kernel named by LAB_KERNEL.
"""

from __future__ import annotations

import os
import sys

_ENOUGH = 4096


def main() -> None:
    """Close everything but the console, and be the kernel."""
    os.closerange(3, _ENOUGH)
    os.write(1, b"--- rebooting\n")
    os.execv(os.environ["LAB_KERNEL"], sys.argv)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
