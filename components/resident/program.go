// Package resident keeps what a daemon holds of the machine's memory near what
// it uses.
package resident

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// settled is how long after its start a daemon has done what it does once.
	settled = 20 * time.Second
	// renewed is how long pages that were used now and then stay mapped.
	renewed = 10 * time.Minute
)

// Settle gives back what the start took, once it is over, and from then on
// now and then what came back and is not used any more. It does not return.
func Settle() {
	time.Sleep(settled)
	debug.FreeOSMemory()
	for {
		if UnmapProgram() != nil {
			// No /proc: then this cannot be done, now or later.
			return
		}
		time.Sleep(renewed)
	}
}

// A daemon runs most of its program once, while it starts, and a small part
// from then on; but pages of a program stay mapped, 64 KiB around each that
// was touched, until the machine is short of memory. Then the kernel has to
// find out page by page which of them are still used. UnmapProgram tells it
// beforehand: what is used again comes back from the page cache, without a
// read, and the rest is free for the taking.
//
// See madvise(2), MADV_DONTNEED on a private mapping of a file.
func UnmapProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		start, length, ok := readOnlyMapping(lines.Text(), program)
		if !ok {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, start, length, syscall.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return lines.Err()
}

// readOnlyMapping reads a line of /proc/self/maps (proc_pid_maps(5)) and
// returns where the mapping is, if it is one of that file which nobody can
// have written to.
func readOnlyMapping(line, file string) (start, length uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != file || len(fields[1]) != 4 || fields[1][1] == 'w' {
		return 0, 0, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	if !found {
		return 0, 0, false
	}
	first, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	end, err := strconv.ParseUint(to, 16, 64)
	if err != nil || end <= first {
		return 0, 0, false
	}
	return uintptr(first), uintptr(end - first), true
}
