package resident

import (
	"os"
	"strings"
	"testing"
)

func TestOnlyWhatNobodyCanHaveWrittenToIsUnmapped(t *testing.T) {
	const program = "/opt/skiff/bin/kube"
	for _, c := range []struct {
		what, line string
		ok         bool
	}{
		{"code", "00400000-0414b000 r-xp 00000000 fe:00 10111356   /opt/skiff/bin/kube", true},
		{"constants", "0414b000-08708000 r--p 03d4b000 fe:00 10111356   /opt/skiff/bin/kube", true},
		{"variables", "08708000-08857000 rw-p 08308000 fe:00 10111356   /opt/skiff/bin/kube", false},
		{"another file", "0414b000-08708000 r--p 03d4b000 fe:00 9   /usr/lib/libc.so.6", false},
		{"no file", "08857000-0a8b1000 rw-p 00000000 00:00 0", false},
		{"a deleted file", "0414b000-08708000 r--p 0 fe:00 9   /opt/skiff/bin/kube (deleted)", false},
		{"upside down", "0414b000-0414b000 r--p 0 fe:00 9   /opt/skiff/bin/kube", false},
		{"no numbers", "xyz-abc r--p 0 fe:00 9   /opt/skiff/bin/kube", false},
		{"nothing", "", false},
	} {
		start, length, ok := readOnlyMapping(c.line, program)
		if ok != c.ok {
			t.Errorf("%s: %v, want %v", c.what, ok, c.ok)
		}
		if c.what == "code" && (start != 0x400000 || length != 0x3d4b000) {
			t.Errorf("code: %#x, %#x bytes", start, length)
		}
	}
}

func TestAProgramRunsOnWithLessOfItMapped(t *testing.T) {
	mapped := func() (kb int) {
		smaps, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		program, _ := os.Readlink("/proc/self/exe")
		ours := false
		for _, line := range strings.Split(string(smaps), "\n") {
			fields := strings.Fields(line)
			switch {
			case len(fields) >= 5 && strings.Contains(fields[0], "-"):
				ours = fields[len(fields)-1] == program && fields[1][1] != 'w'
			case ours && len(fields) == 3 && fields[0] == "Rss:":
				var n int
				for _, digit := range fields[1] {
					n = n*10 + int(digit-'0')
				}
				kb += n
			}
		}
		return kb
	}
	before := mapped()
	if before == 0 {
		t.Fatal("the program's mappings were not found")
	}
	if err := UnmapProgram(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(); after >= before {
		t.Errorf("%d KiB mapped, %d before", after, before)
	}
}
