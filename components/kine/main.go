// Command kine is upstream's kine for databases of somebody else's: it answers
// etcd's API on a socket, out of PostgreSQL, MySQL or MariaDB.
//
//	kine --config FILE
//
// What is left out (SQLite, NATS, its own object store) would be half of the
// program. And upstream's command wants the database's password as an argument
// or in the environment, where it is easily seen: here it is in a file.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/mysql"
	_ "github.com/k3s-io/kine/pkg/drivers/pgsql"
	"github.com/k3s-io/kine/pkg/server"
	"github.com/k3s-io/kine/pkg/tls"
	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"skiff.local/resident"
)

const (
	// stopBound is for requests in flight, and again for the database's connections.
	stopBound = 2 * time.Second
	// emulatedVersion has what the API server asks for since then: notes of
	// progress in watches. Upstream's default.
	emulatedVersion = "3.6.11"
	// notifyInterval is how often these come. Upstream's default.
	notifyInterval = 5 * time.Second
	// overheadBytes may be around a request of the largest size.
	overheadBytes = 512 * 1024
)

// config is the file behind --config.
type config struct {
	// Endpoint is the database with user and password, as the driver wants it.
	Endpoint string `json:"endpoint"`
	// Listen is the path of the socket.
	Listen string `json:"listen"`
	// CA, Certificate and Key are files.
	CA          string `json:"ca,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

func main() {
	if len(os.Args) != 3 || os.Args[1] != "--config" {
		fmt.Fprintln(os.Stderr, "usage: kine --config FILE")
		os.Exit(2)
	}
	c, err := load(os.Args[2])
	if err != nil {
		logrus.Fatal(err)
	}
	logrus.SetFormatter(&discreet{next: &logrus.TextFormatter{DisableColors: true}, secret: c.secret()})
	go resident.Settle()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, c); err != nil {
		logrus.Fatal(err)
	}
}

func load(path string) (*config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &config{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Endpoint == "" || c.Listen == "" {
		return nil, fmt.Errorf("%s: endpoint or listen is missing", path)
	}
	return c, nil
}

// secret is what stands between the scheme and the host, user and password;
// empty when there is no password.
func (c *config) secret() string {
	_, rest, _ := strings.Cut(c.Endpoint, "://")
	secret := rest[:max(strings.LastIndex(rest, "@"), 0)]
	if !strings.Contains(secret, ":") {
		return ""
	}
	return secret
}

// discreet keeps what it was told out of the log, whoever writes it.
type discreet struct {
	next   logrus.Formatter
	secret string
}

func (d *discreet) Format(entry *logrus.Entry) ([]byte, error) {
	line, err := d.next.Format(entry)
	if d.secret != "" {
		line = bytes.ReplaceAll(line, []byte(d.secret), []byte("[redacted]"))
	}
	return line, err
}

// run serves until ctx ends. A database that is not there yet is waited for
// (for five minutes, by the driver); the socket appears when it was.
func run(ctx context.Context, c *config) error {
	var running sync.WaitGroup
	backendContext, stopBackend := context.WithCancel(context.Background())
	defer stopBackend()
	// While it begins there is nothing to be ended in order.
	release := context.AfterFunc(ctx, stopBackend)
	_, backend, err := drivers.New(backendContext, &running, &drivers.Config{
		Endpoint:             c.Endpoint,
		BackendTLSConfig:     tls.Config{CAFile: c.CA, CertFile: c.Certificate, KeyFile: c.Key},
		ConnectionPoolConfig: generic.ConnectionPoolConfig{MaxIdle: 20, MaxIdleTime: 2 * time.Minute},
		// Upstream's defaults; when to compact is said by the API server.
		CompactTimeout:   5 * time.Second,
		CompactMinRetain: 1000,
		CompactBatchSize: 1000,
		PollBatchSize:    500,
		PollInterval:     time.Second,
	})
	if err == nil {
		err = backend.Start(backendContext)
	}
	if !release() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the database cannot be used: %w", err)
	}
	listener, err := listen(c.Listen)
	if err != nil {
		return err
	}
	rpc := grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    embed.DefaultGRPCKeepAliveInterval,
			Timeout: embed.DefaultGRPCKeepAliveTimeout,
		}),
		grpc.MaxConcurrentStreams(embed.DefaultMaxConcurrentStreams),
		grpc.MaxRecvMsgSize(int(embed.DefaultMaxRequestBytes)+overheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	server.New(backend, "unix", notifyInterval, emulatedVersion).Register(rpc)
	context.AfterFunc(ctx, func() {
		defer time.AfterFunc(stopBound, rpc.Stop).Stop()
		rpc.GracefulStop()
	})
	logrus.Infof("serving at %s", c.Listen)
	if err := rpc.Serve(listener); err != nil {
		return err
	}
	stopBackend()
	closed := make(chan struct{})
	go func() { running.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(stopBound):
	}
	return nil
}

// listen makes the socket anew: only one of us is ever started.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}
