package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestTheLogHoldsNoPasswordWhoeverWritesIt(t *testing.T) {
	for endpoint, secret := range map[string]string{
		"postgres://skiff:p%40ss@db:5432/kube":      "skiff:p%40ss",
		"mysql://skiff:p@ss:w/rd@tcp(db:3306)/kube": "skiff:p@ss:w/rd",
		"postgres://skiff@db:5432/kube":             "",
		"nothing":                                   "",
	} {
		c := &config{Endpoint: endpoint}
		if c.secret() != secret {
			t.Errorf("%s: %q", endpoint, c.secret())
		}
		formatter := &discreet{next: &logrus.TextFormatter{DisableColors: true}, secret: c.secret()}
		entry := logrus.NewEntry(logrus.New())
		entry.Message = "cannot use " + endpoint
		line, err := formatter.Format(entry)
		if err != nil || (secret != "" && strings.Contains(string(line), secret)) {
			t.Errorf("%s: %s, %v", endpoint, line, err)
		}
		if !strings.Contains(string(line), "cannot use") {
			t.Errorf("%s: %s", endpoint, line)
		}
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, reason := range map[string]string{
		`{"endpoint": "postgres://a@b/c"}`:                           "listen is missing",
		`{"endpoint": "postgres://a@b/c", "listen": "/s", "x": "y"}`: "unknown field",
		`{`: "EOF",
	} {
		path := filepath.Join(t.TempDir(), "kine.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(path); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
