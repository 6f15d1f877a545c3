package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
)

// The API's description in OpenAPI v2 and v3. Upstream makes all of it while
// the server starts: 200 of the 450 MB that a start allocates, of which 30 stay.
// A node that nobody asks never needs it, and what `kubectl explain` or `apply`
// asks for is one group's description. So each is made by upstream's code when
// it is asked for, and forgotten once it is sent. The entity tag, by which
// clients keep their copies, is known without making anything: the description
// follows from the version, the feature gates and the groups that are served.
type describedAPI struct {
	services []*restful.WebService
	v2       *common.Config
	v3       *common.OpenAPIV3Config
	tag      string
	// making lets one description be made at a time: each takes up to 85 MB.
	making sync.Mutex
}

const (
	pathV2 = "/openapi/v2"
	pathV3 = "/openapi/v3"
)

// describeAPI serves the descriptions of what server has installed until now.
func describeAPI(server *genericapiserver.GenericAPIServer, config *genericapiserver.Config, version string) error {
	services := server.Handler.GoRestfulContainer.RegisteredWebServices()
	api := &describedAPI{
		services: services,
		v2:       config.OpenAPIConfig,
		v3:       config.OpenAPIV3Config,
		tag:      descriptionTag(version, services),
	}
	discovery, err := api.discovery()
	if err != nil {
		return err
	}
	registry := server.Handler.NonGoRestfulMux
	registry.Handle(pathV2, http.HandlerFunc(api.serveV2))
	registry.Handle(pathV3, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", strconv.Quote(api.tag))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(discovery))
	}))
	registry.HandlePrefix(pathV3+"/", http.HandlerFunc(api.serveV3))
	return nil
}

// descriptionTag names what the descriptions follow from. version holds
// whatever else they depend on.
func descriptionTag(version string, services []*restful.WebService) string {
	var parts []string
	for _, service := range services {
		parts = append(parts, fmt.Sprintf("%s %d", service.RootPath(), len(service.Routes())))
	}
	slices.Sort(parts)
	sum := sha256.Sum256([]byte(version + "\n" + strings.Join(parts, "\n")))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// discovery is the list of groups with where their descriptions are.
func (d *describedAPI) discovery() (string, error) {
	paths := map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}
	for _, service := range d.services {
		group := service.RootPath()[1:]
		paths[group] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: d.urlV3(group)}
	}
	text, err := json.Marshal(&handler3.OpenAPIV3Discovery{Paths: paths})
	return string(text), err
}

func (d *describedAPI) urlV3(group string) string {
	u := url.URL{Path: pathV3 + "/" + group, RawQuery: url.Values{"hash": {d.tag}}.Encode()}
	return u.String()
}

func (d *describedAPI) serveV3(w http.ResponseWriter, r *http.Request) {
	group := strings.TrimPrefix(r.URL.Path, pathV3+"/")
	found := slices.IndexFunc(d.services, func(s *restful.WebService) bool { return s.RootPath()[1:] == group })
	if found < 0 {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	if hash := query.Get("hash"); hash != "" {
		if hash != d.tag {
			http.Redirect(w, r, d.urlV3(group), http.StatusMovedPermanently)
			return
		}
		// With its hash in the address a description never changes.
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	d.serve(w, r, func(made *mux.PathRecorderMux) {
		of := restful.NewContainer()
		of.Add(d.services[found])
		routes.OpenAPI{V3Config: d.v3}.InstallV3(of, made)
	})
}

func (d *describedAPI) serveV2(w http.ResponseWriter, r *http.Request) {
	d.serve(w, r, func(made *mux.PathRecorderMux) {
		of := restful.NewContainer()
		for _, service := range d.services {
			of.Add(service)
		}
		routes.OpenAPI{Config: d.v2}.InstallV2(of, made)
	})
}

// serve answers by what install makes, under our tag instead of one that would
// have to be computed from the whole.
func (d *describedAPI) serve(w http.ResponseWriter, r *http.Request, install func(*mux.PathRecorderMux)) {
	tag := strconv.Quote(d.tag)
	if r.Header.Get("If-None-Match") == tag {
		w.Header().Set("Etag", tag)
		w.Header().Add("Vary", "Accept")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// Its own conditions and hash are about another tag.
	inner := r.Clone(r.Context())
	inner.URL.RawQuery = ""
	inner.Header.Del("If-None-Match")
	inner.Header.Del("If-Modified-Since")
	d.making.Lock()
	defer d.making.Unlock()
	made := mux.NewPathRecorderMux("openapi")
	install(made)
	made.ServeHTTP(&taggedWriter{ResponseWriter: w, tag: tag}, inner)
}

// taggedWriter puts its tag in the place of the one that was set.
type taggedWriter struct {
	http.ResponseWriter
	tag    string
	headed bool
}

func (t *taggedWriter) WriteHeader(code int) {
	if !t.headed && t.Header().Get("Etag") != "" {
		t.Header().Set("Etag", t.tag)
		t.Header().Del("Last-Modified")
	}
	t.headed = true
	t.ResponseWriter.WriteHeader(code)
}

func (t *taggedWriter) Write(data []byte) (int, error) {
	if !t.headed {
		t.WriteHeader(http.StatusOK)
	}
	return t.ResponseWriter.Write(data)
}
