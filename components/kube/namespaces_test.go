package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// nodeConfigVariable makes this test program the network part of a node.
const nodeConfigVariable = "KUBE_TEST_NODE_CONFIG"

func TestMain(m *testing.M) {
	path := os.Getenv(nodeConfigVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := loadNodeConfig(path)
	if err == nil {
		var writer *networkWriter
		if writer, err = newNetworkWriter(config); err == nil {
			err = writer.run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// testCluster is two nodes with one pod each, in network namespaces that a
// bridge joins. The outside, 192.0.2.254, is where the API is served.
//
//	pod 10.1.1.2 ─ skiff0 ─ node a ─ 192.0.2.1 ┐
//	                                           ├ bridge 192.0.2.254: API, outside
//	pod 10.1.2.2 ─ skiff0 ─ node b ─ 192.0.2.2 ┘
type testCluster struct {
	t       *testing.T
	backend string
	dir     string
	prefix  string
	api     *nodeAPI
	apiURL  string
	running map[string]*exec.Cmd
}

func newTestCluster(t *testing.T, backend string) *testCluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	for _, program := range []string{"ip", "nft", "nsenter", "bridge"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs the program %s", program)
		}
	}
	c := &testCluster{
		t: t, backend: backend, dir: t.TempDir(), prefix: fmt.Sprintf("kube%d-", os.Getpid()), running: map[string]*exec.Cmd{},
	}
	c.addNamespace("outside")
	c.in("outside", "ip link add br0 type bridge && ip addr add 192.0.2.254/24 dev br0 && ip link set br0 up")
	for i, name := range []string{"a", "b"} {
		c.addNode(name, i+1)
	}
	if _, err := c.try("a", "ip link add probe type vxlan id 1 dstport 1 dev eth0 && ip link delete probe"); err != nil {
		t.Skip("needs a kernel with vxlan")
	}
	var listener net.Listener
	c.inside("outside", func() (err error) {
		listener, err = net.Listen("tcp4", "192.0.2.254:0")
		return err
	})
	c.api, c.apiURL = serveNodeAPI(t, listener), "https://"+listener.Addr().String()
	return c
}

func (c *testCluster) addNamespace(name string) {
	c.t.Helper()
	full := c.prefix + name
	if output, err := exec.Command("ip", "netns", "add", full).CombinedOutput(); err != nil {
		c.t.Skipf("cannot make network namespaces: %s", output)
	}
	c.t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", full).Run() })
	c.in(name, "ip link set lo up")
}

func (c *testCluster) addNode(name string, number int) {
	c.t.Helper()
	pod := "pod-" + name
	c.addNamespace(name)
	c.addNamespace(pod)
	c.in("outside", fmt.Sprintf(`ip link add %[1]s type veth peer name eth0 netns %[2]s && ip link set %[1]s master br0 up`,
		"to-"+name, c.prefix+name))
	c.in(name, fmt.Sprintf(`ip addr add 192.0.2.%[1]d/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.254
		ip link add skiff0 type bridge && ip addr add 10.1.%[1]d.1/24 dev skiff0 && ip link set skiff0 up
		ip link add pod type veth peer name eth0 netns %[2]s && ip link set pod master skiff0 up`, number, c.prefix+pod))
	c.in(pod, fmt.Sprintf(`ip addr add 10.1.%[1]d.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.1.%[1]d.1`, number))
}

// register makes a Node as the kubelet and the controller do.
func (c *testCluster) register(name string, number int) {
	c.api.change(name, func(node *corev1.Node) *corev1.Node {
		node.Spec.PodCIDR = fmt.Sprintf("10.1.%d.0/24", number)
		node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", number)}}
		return node
	})
}

// start runs the network part of a node within its namespace.
func (c *testCluster) start(name string) {
	c.t.Helper()
	backend := fmt.Sprintf(`{"type": %q, "clusterCIDR": "10.1.0.0/16", "kubeconfig": %q}`, c.backend, c.kubeconfig("others"))
	config := fmt.Sprintf(`{"kubelet": ["--kubeconfig=%s", "--hostname-override=%s"],
		"network": {"confPath": %q, "bridge": "skiff0", "dataDir": "/nowhere", "backend": %s}}`,
		c.kubeconfig("node-"+name), name, c.confPath(name), backend)
	path := filepath.Join(c.dir, name+".json")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		c.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	command := exec.Command("nsenter", "--net=/run/netns/"+c.prefix+name, self)
	command.Env = append(os.Environ(), nodeConfigVariable+"="+path)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.running[name] = command
	c.t.Cleanup(func() {
		c.kill(name)
		if text, err := os.ReadFile(log.Name()); err == nil && c.t.Failed() {
			c.t.Logf("node %s said:\n%s", name, text)
		}
	})
}

// kill ends it as a power cut would: nothing is tidied up.
func (c *testCluster) kill(name string) {
	if command := c.running[name]; command != nil {
		_ = command.Process.Kill()
		_ = command.Wait()
		delete(c.running, name)
	}
}

func (c *testCluster) confPath(name string) string {
	return filepath.Join(c.dir, name, "10-skiff.conflist")
}

func (c *testCluster) kubeconfig(identity string) string {
	path := filepath.Join(c.dir, identity+".kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}],
		"users": [{"name": "c", "user": {"token": %q}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}`, c.apiURL, identity)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// try runs a shell script within a namespace.
func (c *testCluster) try(namespace, script string) (string, error) {
	output, err := exec.Command("nsenter", "--net=/run/netns/"+c.prefix+namespace, "sh", "-e", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

func (c *testCluster) in(namespace, script string) string {
	c.t.Helper()
	output, err := c.try(namespace, script)
	if err != nil {
		c.t.Fatalf("in %s: %s: %v\n%s", namespace, script, err, output)
	}
	return output
}

// inside runs a function on a thread within a namespace; sockets that it opens
// belong there for good.
func (c *testCluster) inside(namespace string, function func() error) {
	c.t.Helper()
	if err := c.tryInside(namespace, function); err != nil {
		c.t.Fatal(err)
	}
}

func (c *testCluster) tryInside(namespace string, function func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + c.prefix + namespace)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = function()
		}
		done <- err
	}()
	return <-done
}

// eventually waits for a state, and fails with what was in its way at last.
func (c *testCluster) eventually(what string, look func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = look(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}
