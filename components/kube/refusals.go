package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// refusalsPoll is how often the file is looked at: a node that was removed
	// is believed for that long at most.
	refusalsPoll = time.Second
	// refusalsBytesMax is many times what a year of removals comes to.
	refusalsBytesMax = 16 << 20
	// refusalsMention is how often one node's requests are mentioned in the log.
	refusalsMention = time.Minute
)

// unknownRefusals is the reason while no whole list was ever read.
const unknownRefusals = "which nodes were removed is not known here yet; it will be in a moment, by itself"

// refusals knows the nodes that the cluster does not let in any more, by their
// ids, which their certificates carry as the UID of the user. A certificate is
// good for hours after its node was removed, and its name may belong to
// another machine by then; the id belongs to no other one.
//
// skiffd writes the list to a file, in one step. It is read again when it
// changes. What cannot be read changes nothing: the last list that was whole
// stays in force, because a damaged disk must neither let a removed node in
// nor lock all others out. When there was none since the start, every node
// that has an id is refused but this one: that lasts until skiffd looks,
// seconds later, and concerns nobody who could repair anything. People have no
// such id.
type refusals struct {
	path string
	// certificate is a file with one of this node's own.
	certificate string

	mu    sync.Mutex
	stamp fs.FileInfo
	// reasons is nil until a list was read.
	reasons map[string]string
	// problem is what was last said about the file.
	problem string
	// running holds the ends of the requests that run for nodes.
	running map[string]map[*context.CancelCauseFunc]struct{}
	// mentioned is when a node was last mentioned in the log.
	mentioned map[string]time.Time
}

// refusalsFile is the file's content.
type refusalsFile struct {
	// Refused holds a sentence of each id.
	Refused map[string]string `json:"refused"`
}

// newRefusals reads the list for the first time.
func newRefusals(path, certificate string) *refusals {
	r := &refusals{
		path:        path,
		certificate: certificate,
		running:     map[string]map[*context.CancelCauseFunc]struct{}{},
		mentioned:   map[string]time.Time{},
	}
	r.look()
	return r
}

// follow looks at the file until ctx ends.
func (r *refusals) follow(ctx context.Context) {
	ticker := time.NewTicker(refusalsPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.look()
		}
	}
}

// look reads the file if it is another one than before, and ends what runs for
// nodes that are refused now.
func (r *refusals) look() {
	stamp, reasons, err := readRefusals(r.path, r.lastStamp())
	if err == nil && reasons == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.stamp = nil
		// A node that is alone has no such file, and nobody who could be refused.
		alone := r.reasons == nil && errors.Is(err, fs.ErrNotExist)
		if problem := err.Error(); r.problem != problem && !alone {
			r.problem = problem
			klog.InfoS("The list of removed nodes cannot be read", "problem", problem, "lastOneHolds", r.reasons != nil)
		}
		return
	}
	r.stamp, r.reasons, r.problem = stamp, reasons, ""
	klog.InfoS("Removed nodes are refused", "count", len(reasons))
	for id, ends := range r.running {
		if reason, refused := r.reasons[id]; refused {
			for end := range ends {
				(*end)(errors.New(reason))
			}
		}
	}
}

func (r *refusals) lastStamp() fs.FileInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stamp
}

// readRefusals returns no list and no error when the file is the one of before.
func readRefusals(path string, before fs.FileInfo) (fs.FileInfo, map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	stamp, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if before != nil && os.SameFile(before, stamp) && before.ModTime().Equal(stamp.ModTime()) && before.Size() == stamp.Size() {
		return stamp, nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(file, refusalsBytesMax+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > refusalsBytesMax {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", path, refusalsBytesMax)
	}
	content := refusalsFile{}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&content); err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if content.Refused == nil {
		return nil, nil, fmt.Errorf("%s is damaged: it has no list", path)
	}
	return stamp, content.Refused, nil
}

// refuses returns the reason why the user with that UID is refused, if so.
func (r *refusals) refuses(uid string) (reason string, refused bool) {
	if !isNodeID(uid) {
		return "", false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refusesNode(uid)
}

// refusesNode is asked with the lock held.
func (r *refusals) refusesNode(id string) (reason string, refused bool) {
	if r.reasons == nil {
		// It is read each time: a node gets its id when its cluster is founded.
		return unknownRefusals, id != fileUID(r.certificate)
	}
	reason, refused = r.reasons[id]
	return reason, refused
}

// enter notes that a request runs for a node, which ends it when the node is
// refused; at once, if it is already. The caller calls leave when it is over.
func (r *refusals) enter(id string, end context.CancelCauseFunc) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason, refused := r.refusesNode(id); refused {
		end(errors.New(reason))
	}
	if r.running[id] == nil {
		r.running[id] = map[*context.CancelCauseFunc]struct{}{}
	}
	key := &end
	r.running[id][key] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running[id], key)
		if len(r.running[id]) == 0 {
			delete(r.running, id)
		}
	}
}

// mention writes into the log that a node was refused; not each time.
func (r *refusals) mention(id, user, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.mentioned[id]) >= refusalsMention {
		r.mentioned[id] = now
		klog.InfoS("Refused a node", "user", user, "id", id, "reason", reason)
	}
}

// isNodeID tells the id of a node of ours (32 hexadecimal digits) from the
// UIDs of service accounts, which have dashes.
func isNodeID(uid string) bool {
	if len(uid) != 32 {
		return false
	}
	for _, c := range []byte(uid) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
