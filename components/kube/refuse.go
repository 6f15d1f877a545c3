package main

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"net/http"
	"os"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// uidOID is the attribute of a certificate's subject that Kubernetes reads a
// user's UID from.
var uidOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// guard puts the rule in front of all others of all three servers.
//
// It is a rule of authorization, not of authentication: a refusal says why,
// where a failed authentication says nothing; and whoever asks this API server
// whether a user may do something (the kubelets do, for their own port) hears
// the same. It has to be the first rule, because rules behind it could only
// allow what it denies.
func (r *refusals) guard(config *app.Config) {
	aggregator := &config.Aggregator.GenericConfig.Config
	for _, server := range []*genericapiserver.Config{
		config.KubeAPIs.ControlPlane.Generic,
		&config.ApiExtensions.GenericConfig.Config,
		aggregator,
	} {
		server.Authorization.Authorizer = r.authorizer(server.Authorization.Authorizer)
	}
	// The aggregator's chain is the one that every request passes.
	build := aggregator.BuildHandlerChainFunc
	aggregator.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return r.hangUp(build(r.endRefused(api), c))
	}
}

// authorizer denies what a refused node asks for, and leaves all else to next.
func (r *refusals) authorizer(next authorizer.Authorizer) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if user := a.GetUser(); user != nil {
			for _, id := range []string{user.GetUID(), nodeOf(ctx)} {
				if reason, refused := r.refuses(id); refused {
					r.mention(id, user.GetName(), reason)
					return authorizer.DecisionDeny, reason, nil
				}
			}
		}
		return next.Authorize(ctx, a)
	})
}

// endRefused ends the requests of a node when it is refused. Without it, what
// was allowed before goes on: a watch for up to an hour.
func (r *refusals) endRefused(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id := nodeOf(req.Context())
		if user, known := request.UserFrom(req.Context()); id == "" && known {
			id = user.GetUID()
		}
		if !isNodeID(id) {
			next.ServeHTTP(w, req)
			return
		}
		ctx, end := context.WithCancelCause(req.Context())
		defer end(nil)
		defer r.enter(id, end)()
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// hangUp has the connection of a refused node closed after each answer: Go's
// server does that for HTTP/1 and HTTP/2 (GOAWAY) when it sees the header. All
// handlers behind it know whose certificate was shown: the front proxy's names
// another user.
func (r *refusals) hangUp(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
			if id := certificateUID(req.TLS.PeerCertificates[0]); isNodeID(id) {
				req = req.WithContext(context.WithValue(req.Context(), nodeKey{}, id))
				if _, refused := r.refuses(id); refused {
					w.Header().Set("Connection", "close")
				}
			}
		}
		next.ServeHTTP(w, req)
	})
}

// nodeKey is the key of the node's id in a request's context.
type nodeKey struct{}

// nodeOf returns the id of the node whose certificate was shown, or nothing.
func nodeOf(ctx context.Context) string {
	id, _ := ctx.Value(nodeKey{}).(string)
	return id
}

// fileUID returns the UID in a file's first certificate, or nothing.
func fileUID(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return certificateUID(certificate)
}

func certificateUID(certificate *x509.Certificate) string {
	for _, name := range certificate.Subject.Names {
		if uid, text := name.Value.(string); text && name.Type.Equal(uidOID) {
			return uid
		}
	}
	return ""
}
