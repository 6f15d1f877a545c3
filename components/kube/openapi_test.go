package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

type fruit struct {
	Name string `json:"name"`
}

// installed is a server's container and configuration with two small groups.
func installed() (*genericapiserver.GenericAPIServer, *genericapiserver.Config) {
	definitions := func(common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		schema := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Description: "a fruit"}}
		return map[string]common.OpenAPIDefinition{"skiff.local/kube.fruit": {Schema: schema}}
	}
	named := func(name string) (string, spec.Extensions) { return name, nil }
	config := &genericapiserver.Config{
		OpenAPIConfig: &common.Config{
			Info:              &spec.Info{InfoProps: spec.InfoProps{Title: "fruits", Version: "1"}},
			GetDefinitions:    definitions,
			GetDefinitionName: named,
			DefaultResponse:   &spec.Response{ResponseProps: spec.ResponseProps{Description: "no fruit"}},
		},
		OpenAPIV3Config: &common.OpenAPIV3Config{
			Info:              &spec.Info{InfoProps: spec.InfoProps{Title: "fruits", Version: "1"}},
			GetDefinitions:    definitions,
			GetDefinitionName: named,
			DefaultResponse:   &spec3.Response{ResponseProps: spec3.ResponseProps{Description: "no fruit"}},
		},
	}
	container := restful.NewContainer()
	for _, group := range []string{"/api/v1", "/apis/fruit.example/v1"} {
		service := new(restful.WebService).Path(group).Produces("application/json")
		service.Route(service.GET("/fruits").Operation("list"+strings.ReplaceAll(group, "/", "")).
			To(func(*restful.Request, *restful.Response) {}).
			Returns(http.StatusOK, "OK", fruit{}).Writes(fruit{}))
		container.Add(service)
	}
	handler := &genericapiserver.APIServerHandler{
		GoRestfulContainer: container,
		NonGoRestfulMux:    mux.NewPathRecorderMux("test"),
	}
	return &genericapiserver.GenericAPIServer{Handler: handler}, config
}

func ask(handler http.Handler, path string, header ...string) *http.Response {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDescriptionsAreUpstreams(t *testing.T) {
	server, config := installed()
	upstream := mux.NewPathRecorderMux("upstream")
	routes.OpenAPI{Config: config.OpenAPIConfig}.InstallV2(server.Handler.GoRestfulContainer, upstream)
	routes.OpenAPI{V3Config: config.OpenAPIV3Config}.InstallV3(server.Handler.GoRestfulContainer, upstream)
	if err := describeAPI(server, config, "1"); err != nil {
		t.Fatal(err)
	}
	ours := server.Handler.NonGoRestfulMux
	const v2Proto = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	const v3Proto = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	for _, c := range []struct{ path, accept string }{
		{pathV2, "application/json"},
		{pathV2, v2Proto},
		{pathV3 + "/api/v1", "application/json"},
		{pathV3 + "/api/v1", v3Proto},
		{pathV3 + "/apis/fruit.example/v1", "*/*"},
		{pathV3 + "/apis/fruit.example/v1", "text/plain"},
		{pathV2, "text/plain"},
	} {
		a, b := ask(ours, c.path, "Accept", c.accept), ask(upstream, c.path, "Accept", c.accept)
		if a.StatusCode != b.StatusCode || body(t, a) != body(t, b) {
			t.Errorf("%s as %s: another answer than upstream's", c.path, c.accept)
		}
		for _, name := range []string{"Content-Type", "Vary"} {
			if x, y := a.Header.Get(name), b.Header.Get(name); x != y {
				t.Errorf("%s as %s: %s is %q, upstream's %q", c.path, c.accept, name, x, y)
			}
		}
	}
	if code := ask(ours, pathV3+"/apis/none/v1").StatusCode; code != http.StatusNotFound {
		t.Errorf("an unknown group: %d", code)
	}
}

func TestDescriptionsAreFoundKeptAndRenewed(t *testing.T) {
	server, config := installed()
	if err := describeAPI(server, config, "1"); err != nil {
		t.Fatal(err)
	}
	registry := server.Handler.NonGoRestfulMux
	var found handler3.OpenAPIV3Discovery
	if err := json.Unmarshal([]byte(body(t, ask(registry, pathV3))), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Paths) != 2 {
		t.Fatalf("found %v", found.Paths)
	}
	address := found.Paths["apis/fruit.example/v1"].ServerRelativeURL
	first := ask(registry, address)
	if first.StatusCode != http.StatusOK || !strings.Contains(first.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %d, %v", address, first.StatusCode, first.Header)
	}
	tag := first.Header.Get("Etag")
	for _, path := range []string{address, pathV2} {
		if code := ask(registry, path, "If-None-Match", tag).StatusCode; code != http.StatusNotModified {
			t.Errorf("%s with its tag: %d", path, code)
		}
		if code := ask(registry, path, "If-None-Match", `"other"`).StatusCode; code != http.StatusOK {
			t.Errorf("%s with another tag: %d", path, code)
		}
	}
	moved := ask(registry, pathV3+"/apis/fruit.example/v1?hash=old")
	if moved.StatusCode != http.StatusMovedPermanently || moved.Header.Get("Location") != address {
		t.Errorf("an old hash: %d to %s", moved.StatusCode, moved.Header.Get("Location"))
	}
	services := server.Handler.GoRestfulContainer.RegisteredWebServices()
	if descriptionTag("1", services) == descriptionTag("2", services) ||
		descriptionTag("1", services) == descriptionTag("1", services[:1]) {
		t.Error("the tag does not follow what is described")
	}
}
