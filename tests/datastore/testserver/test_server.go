// Package testserver takes the place of upstream's package of the same name:
// instead of an embedded etcd it starts the program that SKIFF_DATASTORE names.
// The functions and their contracts are upstream's, so its tests don't change.
package testserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

const (
	// program holds the command line of a datastore, without its options.
	program = "SKIFF_DATASTORE"
	// transport chooses how tests connect: "tcp" (default) or "unix".
	transport = "SKIFF_DATASTORE_TRANSPORT"
	// used names a file that gets the name of each test with a datastore,
	// behind a prefix that tells packages apart.
	used       = "SKIFF_DATASTORE_USED"
	usedPrefix = "SKIFF_DATASTORE_USED_PREFIX"

	startTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// NewTestConfig returns what upstream's tests adjust before they start a
// server. Only the fields that RunEtcd reads below have an effect.
func NewTestConfig(t testing.TB) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	return cfg
}

// Ports are chosen by binding and closing, so starts take turns.
var startLock sync.Mutex

// RunEtcd starts a datastore that ends with the test and returns a client.
func RunEtcd(t testing.TB, cfg *embed.Config) *kubernetes.Client {
	t.Helper()
	startLock.Lock()
	defer startLock.Unlock()
	if cfg == nil {
		cfg = NewTestConfig(t)
	}
	note(t)
	listen, endpoint := address(t)
	start(t, cfg, listen)
	listening(t, listen)
	var tlsConfig *tls.Config
	if !cfg.ClientTLSInfo.Empty() {
		endpoint = strings.Replace(endpoint, "http://", "https://", 1)
		var err error
		if tlsConfig, err = cfg.ClientTLSInfo.ClientConfig(); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kubernetes.New(clientv3.Config{
		TLS:         tlsConfig,
		Endpoints:   []string{endpoint},
		DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithBlock()},
		Logger:      zaptest.NewLogger(t, zaptest.Level(zapcore.ErrorLevel)).Named("etcd-client"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ready(t, client)
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	return client
}

// note lets the runner tell tests of storage from tests of its surroundings.
func note(t testing.TB) {
	t.Helper()
	path := os.Getenv(used)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	name, _, _ := strings.Cut(t.Name(), "/")
	fmt.Fprintln(file, os.Getenv(usedPrefix)+name)
}

func address(t testing.TB) (listen, endpoint string) {
	t.Helper()
	if os.Getenv(transport) == "unix" {
		dir, err := os.MkdirTemp("", "ds") // a socket's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "s")
		return "unix:" + path, "unix://" + path
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String(), "http://" + listener.Addr().String()
}

// start runs the program and ends it with the test. That it ends orderly, and
// not before, is part of every test.
func start(t testing.TB, cfg *embed.Config, listen string) {
	t.Helper()
	words := strings.Fields(os.Getenv(program))
	if len(words) == 0 {
		t.Fatalf("%s does not name a datastore", program)
	}
	arguments := append(words[1:], "--dir", filepath.Join(cfg.Dir, "datastore"), "--listen", listen)
	if cfg.WatchProgressNotifyInterval != 0 {
		arguments = append(arguments, "--watch-progress-notify-interval", goDuration(cfg.WatchProgressNotifyInterval))
	}
	if cfg.MaxRequestBytes != 0 {
		arguments = append(arguments, "--max-request-bytes", fmt.Sprint(cfg.MaxRequestBytes))
	}
	if info := cfg.ClientTLSInfo; !info.Empty() {
		arguments = append(arguments, "--cert-file", info.CertFile, "--key-file", info.KeyFile)
		if info.TrustedCAFile != "" {
			arguments = append(arguments, "--trusted-ca-file", info.TrustedCAFile)
		}
		if info.ClientCertAuth {
			arguments = append(arguments, "--client-cert-auth")
		}
	}
	log := &tail{}
	command := exec.Command(words[0], arguments...)
	command.Stdout, command.Stderr = log, log
	// The datastore must not outlive a test run that was killed.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			t.Errorf("the datastore ended by itself: %v\n%s", err, log)
			return
		default:
		}
		command.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the datastore did not end orderly: %v\n%s", err, log)
			}
		case <-time.After(stopTimeout):
			command.Process.Kill()
			t.Errorf("the datastore did not end within %v\n%s", stopTimeout, log)
		}
	})
}

// goDuration writes whole milliseconds, which every option takes.
func goDuration(d time.Duration) string {
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// listening waits for the first accepted connection: a client that is refused
// once waits a second before it tries again.
func listening(t testing.TB, listen string) {
	t.Helper()
	network, address := "tcp", listen
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		network, address = "unix", path
	}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if connection, err := net.Dial(network, address); err == nil {
			connection.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("nobody listens on %s after %v", listen, startTimeout)
}

func ready(t testing.TB, client *kubernetes.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if _, err := client.KV.Get(ctx, "health"); err != nil {
		t.Fatalf("the datastore does not serve: %v", err)
	}
}

// tail keeps the last of what was written to it.
type tail struct {
	lock  sync.Mutex
	bytes []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.bytes = append(t.bytes, p...)
	if extra := len(t.bytes) - 8192; extra > 0 {
		t.bytes = t.bytes[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	return string(t.bytes)
}
