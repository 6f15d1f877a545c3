package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var bothBackends = []string{backendVXLAN, backendHostGW}

// greeter tells everybody who connects by which address it sees them, and
// repeats what they say.
func (c *testCluster) greeter(namespace, address string) string {
	c.t.Helper()
	var listener net.Listener
	c.inside(namespace, func() (err error) {
		listener, err = net.Listen("tcp4", address+":0")
		return err
	})
	c.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				host, _, _ := net.SplitHostPort(connection.RemoteAddr().String())
				fmt.Fprintln(connection, host)
				for lines := bufio.NewScanner(connection); lines.Scan(); {
					fmt.Fprintln(connection, lines.Text())
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// call connects from a namespace and returns by which address it was seen.
func (c *testCluster) call(from, to string) (connection net.Conn, seen string, err error) {
	err = c.tryInside(from, func() error {
		if connection, err = net.DialTimeout("tcp4", to, time.Second); err != nil {
			return err
		}
		seen, err = answer(connection)
		return err
	})
	return connection, seen, err
}

func answer(connection net.Conn) (string, error) {
	_ = connection.SetReadDeadline(time.Now().Add(3 * time.Second))
	line, err := bufio.NewReader(connection).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (c *testCluster) expectCall(from, to, expected string) net.Conn {
	c.t.Helper()
	var kept net.Conn
	c.eventually(from+" to "+to, func() error {
		connection, seen, err := c.call(from, to)
		if err == nil && seen != expected {
			err = fmt.Errorf("seen as %s instead of %s", seen, expected)
		}
		kept = connection
		return err
	})
	c.t.Cleanup(func() { _ = kept.Close() })
	return kept
}

// wholeCluster starts a cluster in which the pods reach one another.
func wholeCluster(t *testing.T, backend string) (c *testCluster, podB string) {
	t.Helper()
	c = newTestCluster(t, backend)
	for i, name := range []string{"a", "b"} {
		c.register(name, i+1)
		c.start(name)
	}
	podB = c.greeter("pod-b", "10.1.2.2")
	c.expectCall("pod-a", podB, "10.1.1.2")
	return c, podB
}

// traces is what node a's kernel knows of a range or of an address.
func (c *testCluster) traces(of ...string) []string {
	all := c.in("a", "ip route; ip neigh show nud permanent; bridge fdb show")
	var found []string
	for line := range strings.Lines(all) {
		for _, text := range of {
			if strings.Contains(line, text) {
				found = append(found, strings.TrimSpace(line))
				break
			}
		}
	}
	return found
}

func forBothBackends(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range bothBackends {
		t.Run(backend, func(t *testing.T) { test(t, backend) })
	}
}

func TestPodsOfTwoNodesSeeOneAnothersAddressesAndTheOutsideSeesTheNodes(t *testing.T) {
	forBothBackends(t, func(t *testing.T, backend string) {
		c, _ := wholeCluster(t, backend)
		c.expectCall("pod-a", c.greeter("outside", "192.0.2.254"), "192.0.2.1")
		mtu, route := 1450, "10.1.2.0/24 via 10.1.2.0 dev flannel.7443 onlink"
		if backend == backendHostGW {
			mtu, route = 1500, "10.1.2.0/24 via 192.0.2.2 dev eth0"
		}
		if got := c.traces("10.1.2.0/24"); len(got) != 1 || got[0] != route {
			t.Errorf("route: %q", got)
		}
		conflist, err := os.ReadFile(c.confPath("a"))
		if text := string(conflist); err != nil || !strings.Contains(text, fmt.Sprintf(`"mtu": %d`, mtu)) ||
			!strings.Contains(text, `"ipMasq": false`) {
			t.Errorf("conflist: %v\n%s", err, conflist)
		}
		count := c.in("a", `ip -stats link show flannel.7443 2>/dev/null | grep --after-context=1 RX: | tail -1 || true`)
		if through := count != "" && !strings.HasPrefix(count, "0 "); through != (backend == backendVXLAN) {
			t.Errorf("through the vxlan link: %q", count)
		}
	})
}

func TestAKilledProcessCutsNoConnectionAndCatchesUp(t *testing.T) {
	forBothBackends(t, func(t *testing.T, backend string) {
		c, podB := wholeCluster(t, backend)
		// A node that is removed while nobody watches, and its traces.
		c.register("gone", 9)
		c.api.change("gone", func(node *corev1.Node) *corev1.Node {
			node.Annotations = map[string]string{
				annotationManaged: "true", annotationType: backend, annotationAddress: "192.0.2.9",
				annotationData: `{"VNI":7443,"VtepMAC":"02:00:00:00:00:09"}`,
			}
			return node
		})
		gone := []string{"10.1.9.0", "192.0.2.9", "02:00:00:00:00:09"}
		c.eventually("the third node is known", func() error {
			if len(c.traces(gone...)) == 0 {
				return errors.New("no trace")
			}
			return nil
		})
		connection := c.expectCall("pod-a", podB, "10.1.1.2")
		link := c.in("a", "ip -oneline link")
		conflist, _ := os.Stat(c.confPath("a"))

		c.kill("a")
		c.api.change("gone", func(*corev1.Node) *corev1.Node { return nil })
		say(t, connection, "while it is dead")
		c.start("a")
		c.eventually("the removed node has gone", func() error {
			if left := c.traces(gone...); len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
		say(t, connection, "when it is back")
		c.expectCall("pod-a", podB, "10.1.1.2")
		if now := c.in("a", "ip -oneline link"); now != link {
			t.Errorf("links were made anew:\n%s\n%s", link, now)
		}
		if now, err := os.Stat(c.confPath("a")); err != nil || !os.SameFile(conflist, now) {
			t.Errorf("the conflist was written again: %v", err)
		}
	})
}

func say(t *testing.T, connection net.Conn, text string) {
	t.Helper()
	fmt.Fprintln(connection, text)
	if heard, err := answer(connection); err != nil || heard != text {
		t.Errorf("%s: heard %q, %v", text, heard, err)
	}
}

func TestAnotherAddressOfANodeIsFollowed(t *testing.T) {
	forBothBackends(t, func(t *testing.T, backend string) {
		c, podB := wholeCluster(t, backend)
		c.in("b", "echo 1 >/proc/sys/net/ipv4/conf/eth0/promote_secondaries; ip addr add 192.0.2.22/24 dev eth0")
		c.api.change("b", func(node *corev1.Node) *corev1.Node {
			node.Status.Addresses[0].Address = "192.0.2.22"
			return node
		})
		c.eventually("the others go by the new address", func() error {
			if left := c.traces("192.0.2.2 "); len(left) > 0 || len(c.traces("192.0.2.22")) == 0 {
				return fmt.Errorf("%q", c.traces("192.0.2."))
			}
			return nil
		})
		c.in("b", "ip addr del 192.0.2.2/24 dev eth0")
		c.expectCall("pod-a", podB, "10.1.1.2")
	})
}

func TestARemovedNodeLeavesNothing(t *testing.T) {
	forBothBackends(t, func(t *testing.T, backend string) {
		c, _ := wholeCluster(t, backend)
		c.kill("b")
		c.api.change("b", func(*corev1.Node) *corev1.Node { return nil })
		c.eventually("all traces go", func() error {
			left := c.traces("10.1.2.", "192.0.2.2 ", "dst 192.0.2.2")
			if len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
	})
}

func TestANodeThatIsMadeAnewIsAnnouncedAgain(t *testing.T) {
	c, podB := wholeCluster(t, backendVXLAN)
	c.api.change("b", func(*corev1.Node) *corev1.Node { return nil })
	c.register("b", 2)
	c.eventually("it is announced", func() error {
		if c.api.node("b").Annotations[annotationManaged] != "true" {
			return errors.New("not yet")
		}
		return nil
	})
	c.expectCall("pod-a", podB, "10.1.1.2")
}

func TestPodsOfATimeWithoutOtherNodesAreSeenByTheirAddressAsWell(t *testing.T) {
	c := newTestCluster(t, backendVXLAN)
	// What the bridge plugin made for the pod then.
	c.in("a", `nft 'add table inet cni_plugins_masquerade
		add chain inet cni_plugins_masquerade c { type nat hook postrouting priority srcnat; }
		add rule inet cni_plugins_masquerade c ip saddr 10.1.1.2 ip daddr != 10.1.1.0/24 masquerade'`)
	for i, name := range []string{"a", "b"} {
		c.register(name, i+1)
		c.start(name)
	}
	c.expectCall("pod-a", c.greeter("pod-b", "10.1.2.2"), "10.1.1.2")
	c.expectCall("pod-a", c.greeter("outside", "192.0.2.254"), "192.0.2.1")
}

func TestTheMTUFollowsTheLinkBelow(t *testing.T) {
	c, podB := wholeCluster(t, backendVXLAN)
	c.in("a", "ip link set eth0 mtu 1400")
	c.eventually("link and conflist follow", func() error {
		conflist, err := os.ReadFile(c.confPath("a"))
		link := c.in("a", "ip link show flannel.7443")
		if err != nil || !strings.Contains(string(conflist), `"mtu": 1350`) || !strings.Contains(link, "mtu 1350") {
			return fmt.Errorf("%v: %s\n%s", err, link, conflist)
		}
		return nil
	})
	c.expectCall("pod-a", podB, "10.1.1.2")
}

func TestWhatSomebodyTakesAwayComesBack(t *testing.T) {
	c, podB := wholeCluster(t, backendVXLAN)
	for _, harm := range []string{
		"ip link delete flannel.7443",
		"ip link set flannel.7443 down",
		"ip route delete 10.1.2.0/24",
		"bridge fdb delete $(bridge fdb show dev flannel.7443 | cut -d' ' -f1) dev flannel.7443 dst 192.0.2.2",
	} {
		c.in("a", harm)
		c.expectCall("pod-a", podB, "10.1.1.2")
	}
}
