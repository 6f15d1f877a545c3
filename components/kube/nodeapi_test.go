package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeAPI serves Nodes as an API server does, to whom may see or change them:
// the token `others` lists and watches all, the token `node-NAME` patches the
// status of its own Node, and nobody may do anything else.
type nodeAPI struct {
	mutex   sync.Mutex
	version int
	nodes   map[string]*corev1.Node
	events  []metav1.WatchEvent
	changed *sync.Cond
}

func serveNodeAPI(t *testing.T, listener net.Listener) *nodeAPI {
	t.Helper()
	api := &nodeAPI{nodes: map[string]*corev1.Node{}}
	api.changed = sync.NewCond(&api.mutex)
	// TLS, because client-go shows no credentials without it.
	server := httptest.NewUnstartedServer(api)
	_ = server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.CloseClientConnections)
	return api
}

// change writes a Node; a function that returns nil deletes it.
func (a *nodeAPI) change(name string, edit func(*corev1.Node) *corev1.Node) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	kind := "MODIFIED"
	before, ok := a.nodes[name]
	if !ok {
		kind, before = "ADDED", &corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}}
		before.Name, before.CreationTimestamp = name, metav1.NewTime(time.Unix(int64(a.version), 0))
	}
	after := edit(before.DeepCopy())
	if after == nil {
		kind, after = "DELETED", before
		delete(a.nodes, name)
	} else {
		a.nodes[name] = after
	}
	a.version++
	after.ResourceVersion = strconv.Itoa(a.version)
	raw, err := json.Marshal(after)
	if err != nil {
		panic(err)
	}
	event := metav1.WatchEvent{Type: kind}
	event.Object.Raw = raw
	a.events = append(a.events, event)
	a.changed.Broadcast()
}

func (a *nodeAPI) node(name string) *corev1.Node {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if node := a.nodes[name]; node != nil {
		return node.DeepCopy()
	}
	return nil
}

func (a *nodeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	identity := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	own := "/api/v1/nodes/" + strings.TrimPrefix(identity, "node-") + "/status"
	switch {
	case identity == "others" && r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes":
		if r.URL.Query().Get("watch") == "" {
			a.list(w)
		} else {
			a.watch(w, r)
		}
	case r.Method == http.MethodPatch && r.URL.Path == own:
		a.patch(w, r, strings.TrimPrefix(identity, "node-"))
	default:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,`+
			`"message":"%s may not %s %s"}`, identity, r.Method, r.URL.Path)
	}
}

func (a *nodeAPI) list(w http.ResponseWriter) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	list := corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}}
	list.ResourceVersion = strconv.Itoa(a.version)
	for _, node := range a.nodes {
		list.Items = append(list.Items, *node)
	}
	_ = json.NewEncoder(w).Encode(list)
}

// watch sends what happened after the version that is asked for. Who wants the
// list as part of the watch is told to list.
func (a *nodeAPI) watch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		return
	}
	next, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	stop := func() { a.mutex.Lock(); a.changed.Broadcast(); a.mutex.Unlock() }
	go func() { <-r.Context().Done(); stop() }()
	flusher := w.(http.Flusher)
	flusher.Flush()
	for r.Context().Err() == nil {
		a.mutex.Lock()
		for next >= len(a.events) && r.Context().Err() == nil {
			a.changed.Wait()
		}
		pending := a.events[min(next, len(a.events)):]
		next = len(a.events)
		a.mutex.Unlock()
		for _, event := range pending {
			_ = json.NewEncoder(w).Encode(event)
		}
		flusher.Flush()
	}
}

func (a *nodeAPI) patch(w http.ResponseWriter, r *http.Request, name string) {
	var patch struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.change(name, func(node *corev1.Node) *corev1.Node {
		if node.Annotations == nil {
			node.Annotations = map[string]string{}
		}
		for key, value := range patch.Metadata.Annotations {
			node.Annotations[key] = value
		}
		return node
	})
	_ = json.NewEncoder(w).Encode(a.node(name))
}
