package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

const (
	gammaID = "0123456789abcdef0123456789abcdef"
	betaID  = "ffffffffffffffffffffffffffffffff"
	gone    = "gamma was removed"
)

// writeList puts a file in place of the former one, as skiffd does.
func writeList(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func listOf(ids ...string) string {
	var lines []string
	for _, id := range ids {
		lines = append(lines, fmt.Sprintf("%q: %q", id, gone))
	}
	return `{"refused": {` + strings.Join(lines, ", ") + `}}`
}

// decide asks the rule, in front of rules that allow everything.
func decide(t *testing.T, r *refusals, uid string) (authorizer.Decision, string) {
	t.Helper()
	allow := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "allowed", nil
	})
	asked := authorizer.AttributesRecord{User: &user.DefaultInfo{
		Name: "system:node:gamma", UID: uid, Groups: []string{user.NodesGroup, user.SystemPrivilegedGroup},
	}}
	decision, reason, err := r.authorizer(allow).Authorize(context.Background(), asked)
	if err != nil {
		t.Fatal(err)
	}
	return decision, reason
}

func TestWhoWasRemovedIsDeniedWhateverOtherRulesSay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	writeList(t, path, listOf(gammaID))
	r := newRefusals(path, "")
	if decision, reason := decide(t, r, gammaID); decision != authorizer.DecisionDeny || reason != gone {
		t.Errorf("the removed node: %v, %q", decision, reason)
	}
	// A machine that came under its name, a service account, and people.
	for _, uid := range []string{betaID, "01234567-89ab-cdef-0123-456789abcdef", ""} {
		if decision, reason := decide(t, r, uid); decision != authorizer.DecisionAllow {
			t.Errorf("%q: %v, %q", uid, decision, reason)
		}
	}
	// Who speaks for somebody else, as the front proxy does, is asked for its own.
	shown := context.WithValue(context.Background(), nodeKey{}, gammaID)
	asked := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "somebody", UID: betaID}}
	if decision, reason, _ := r.authorizer(nobody{}).Authorize(shown, asked); decision != authorizer.DecisionDeny || reason != gone {
		t.Errorf("a removed node for somebody else: %v, %q", decision, reason)
	}
	if decision, _, _ := r.authorizer(nobody{}).Authorize(context.Background(), authorizer.AttributesRecord{}); decision != authorizer.DecisionNoOpinion {
		t.Errorf("nobody: %v", decision)
	}
}

type nobody struct{}

func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
}

func TestAListThatCannotBeReadChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	r := newRefusals(path, "")
	is := func(when, uid string, wanted authorizer.Decision) {
		t.Helper()
		r.look()
		if decision, reason := decide(t, r, uid); decision != wanted {
			t.Errorf("%s: %v, %q", when, decision, reason)
		}
	}
	is("missing from the start", betaID, authorizer.DecisionDeny)
	is("missing from the start, people", "", authorizer.DecisionAllow)
	for _, text := range []string{"", "{", "{}", `{"refused": null}`, `{"refused": ["` + betaID + `"]}`, "\x00\x00\x00\x00"} {
		writeList(t, path, text)
		is("damaged from the start: "+text, betaID, authorizer.DecisionDeny)
	}
	writeList(t, path, listOf(gammaID))
	is("whole", betaID, authorizer.DecisionAllow)
	is("whole", gammaID, authorizer.DecisionDeny)
	for _, text := range []string{"", "{", "{}"} {
		writeList(t, path, text)
		is("damaged later: "+text, betaID, authorizer.DecisionAllow)
		is("damaged later: "+text, gammaID, authorizer.DecisionDeny)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	is("missing later", betaID, authorizer.DecisionAllow)
	is("missing later", gammaID, authorizer.DecisionDeny)
	writeList(t, path, listOf(betaID))
	is("another one", betaID, authorizer.DecisionDeny)
	is("another one", gammaID, authorizer.DecisionAllow)
}

func TestWithoutAListTheNodeItselfIsLetIn(t *testing.T) {
	dir := t.TempDir()
	path, own := filepath.Join(dir, "refused.json"), filepath.Join(dir, "own.pem")
	r := newRefusals(path, own)
	is := func(when, uid string, wanted authorizer.Decision) {
		t.Helper()
		r.look()
		if decision, reason := decide(t, r, uid); decision != wanted {
			t.Errorf("%s, %s: %v, %q", when, uid, decision, reason)
		}
	}
	is("no certificate", betaID, authorizer.DecisionDeny)
	for _, text := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		is("damaged: "+text, betaID, authorizer.DecisionDeny)
	}
	// The cluster is founded while it runs.
	der, _ := certificateOf(t, betaID)
	if err := os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	is("its own", betaID, authorizer.DecisionAllow)
	is("its own", gammaID, authorizer.DecisionDeny)
	writeList(t, path, listOf(betaID))
	is("it was removed", betaID, authorizer.DecisionDeny)
	is("it was removed", gammaID, authorizer.DecisionAllow)
}

func TestWhatRunsForANodeEndsWithItAndSoDoesItsConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	writeList(t, path, listOf())
	r := newRefusals(path, "")
	server := serveWatches(t, r)
	gamma, beta := clientOf(t, server, gammaID), clientOf(t, server, betaID)
	gammaWatch, betaWatch := watch(t, server, gamma), watch(t, server, beta)

	writeList(t, path, listOf(gammaID))
	r.look()
	select {
	case <-gammaWatch:
	case <-time.After(10 * time.Second):
		t.Fatal("the removed node's watch goes on")
	}
	select {
	case <-betaWatch:
		t.Fatal("another node's watch ended")
	case <-time.After(100 * time.Millisecond):
	}
	// Refused over the old connection, and that was the last time.
	if reused := connects(t, server, gamma); !reused {
		t.Error("the first question went over a new connection")
	}
	// The word that it closes may come a moment after the answer.
	for deadline := time.Now().Add(10 * time.Second); connects(t, server, gamma); {
		if time.Now().After(deadline) {
			t.Fatal("the removed node's connection stays open")
		}
	}
	if reused := connects(t, server, beta); !reused {
		t.Error("another node's connection was closed")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.running) != 1 {
		t.Errorf("%d nodes are noted, of which one still runs something", len(r.running))
	}
}

func TestARequestThatCameThroughBeforeItWasNotedEndsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused.json")
	writeList(t, path, listOf(gammaID))
	r := newRefusals(path, "")
	ctx, end := context.WithCancelCause(context.Background())
	leave := r.enter(gammaID, end)
	if cause := context.Cause(ctx); cause == nil || cause.Error() != gone {
		t.Errorf("cause: %v", cause)
	}
	leave()
	if len(r.running) != 0 {
		t.Error("it is noted still")
	}
}

// serveWatches answers /watch with a line and then nothing until the request
// ends, and all else at once; users come from the certificates.
func serveWatches(t *testing.T, r *refusals) *httptest.Server {
	t.Helper()
	api := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintln(w, "hello")
		w.(http.Flusher).Flush()
		if req.URL.Path == "/watch" {
			<-req.Context().Done()
		}
	})
	guarded := r.endRefused(api)
	identify := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		who := &user.DefaultInfo{UID: certificateUID(req.TLS.PeerCertificates[0])}
		guarded.ServeHTTP(w, req.WithContext(request.WithUser(req.Context(), who)))
	})
	server := httptest.NewUnstartedServer(r.hangUp(identify))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// certificateOf makes a certificate of the node with that id.
func certificateOf(t *testing.T, id string) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		Subject:      pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: uidOID, Value: id}}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func clientOf(t *testing.T, server *httptest.Server, id string) *http.Client {
	t.Helper()
	der, key := certificateOf(t, id)
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &http.Client{Transport: transport}
}

// watch returns when the first line came; what it returns is closed at the end.
func watch(t *testing.T, server *httptest.Server, client *http.Client) <-chan struct{} {
	t.Helper()
	response, err := client.Get(server.URL + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != 2 {
		t.Fatalf("%s, where API servers speak HTTP/2", response.Proto)
	}
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() {
		t.Fatal("nothing came")
	}
	ended := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		response.Body.Close()
		close(ended)
	}()
	return ended
}

// connects asks, and tells whether the request went over a connection that was there.
func connects(t *testing.T, server *httptest.Server, client *http.Client) (reused bool) {
	t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet, server.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
	}
	return reused
}
