package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Where the ciphertext of a mount came from, for the log.
const (
	fromKubelet = "kubelet"
	fromAPI     = "api-server"
)

// entries returns the entries of the ciphertext Secret and where they came from.
func (p *Provider) entries(ctx context.Context, r *request, h *holds) (map[string][]byte, string, *failure) {
	if len(r.handed) > 0 {
		return r.handed, fromKubelet, nil
	}
	_, asPod := r.tokens[""]
	if !asPod || p.config.Kubernetes == nil {
		why := "the kubelet handed over no Secret, and no token for the API server to read it as the pod"
		if asPod {
			why = "the kubelet handed over no Secret, and this provider knows no API server to read it from"
		}
		return nil, "", fail(codes.FailedPrecondition, "no ciphertext of "+r.place(), why,
			fmt.Sprintf("that the pod's volume has under csi the line `nodePublishSecretRef: {name: %s}`; or that CSIDriver secrets-store.csi.k8s.io has "+
				"under spec.tokenRequests the line `- audience: ''` and the pod's service account a Role with `get` on that Secret", r.secret))
	}
	token, failure := r.tokens.pick("", "read "+r.place()+" as the pod", r.pod, p.now())
	if failure != nil {
		return nil, "", failure
	}
	large := func() error { return h.admitLargest(ctx, p, r.pod.namespace) }
	data, err := p.config.Kubernetes.secret(ctx, r.pod.namespace, r.secret, token.text, large, p.metrics.kubernetesRequest)
	if err != nil {
		return nil, fromAPI, p.unread(ctx, r, err)
	}
	return data, fromAPI, nil
}

// unread makes the failure of reading the Secret as the pod.
func (p *Provider) unread(ctx context.Context, r *request, err error) *failure {
	what := fmt.Sprintf("reading %s from %s as service account %s", r.place(), p.config.Kubernetes.host, r.serviceAccount())
	why := clip(err.Error(), 500)
	if isTooLong(err) {
		why = fmt.Sprintf("the answer is longer than %d MiB, which no Secret is", maxSecretAnswer>>20)
	}
	if errors.Is(err, errTooManyEntries) {
		return fail(codes.FailedPrecondition, what, why, "the Secret: spread its entries over several")
	}
	switch code := statusOf(err); {
	case code == http.StatusNotFound:
		return fail(codes.NotFound, what, why,
			"secretName in the class, and that the Secret is in the pod's own namespace")
	case code == http.StatusForbidden:
		// No command that grants it: only the class asks for this Secret.
		return fail(codes.PermissionDenied, what, why, fmt.Sprintf(
			"whether the service account is meant to read this Secret: then the pod's volume has under csi the line `nodePublishSecretRef: {name: %s}`, "+
				"or the owner of the namespace gives the account a Role with `get` on this one", r.secret))
	case code == http.StatusUnauthorized:
		return fail(codes.Unauthenticated, what, why,
			"that CSIDriver secrets-store.csi.k8s.io has under spec.tokenRequests the line `- audience: ''`, and the clocks of the node and of the API server")
	case ctx.Err() != nil:
		return p.late(r, what)
	}
	return fail(codes.Internal, what, why,
		"that the API server can be reached from the provider's pod on this node, or use nodePublishSecretRef, which does not need it")
}

// choose returns the objects to make, and the entries that they are made of in
// the order in which they are first wanted. Every one of those is well-formed
// ciphertext: nothing else is ever sent to Vault.
func (r *request) choose(data map[string][]byte, from string) ([]object, []string, *failure) {
	objects := r.objects
	if objects == nil {
		var failure *failure
		if objects, failure = r.everyEntry(data); failure != nil {
			return nil, nil, failure
		}
	}
	var order []string
	var absent, bad problems
	seen := map[string]bool{}
	for _, o := range objects {
		if seen[o.entry] {
			continue
		}
		seen[o.entry] = true
		text, ok := data[o.entry]
		if !ok {
			if !absent.add(quote(o.entry)) {
				break
			}
			continue
		}
		if _, err := ciphertext.Version(text); err != nil {
			if !bad.add(fmt.Sprintf("entry %s %s", quote(o.entry), err)) {
				break
			}
			continue
		}
		order = append(order, o.entry)
	}
	hint := ""
	if from == fromKubelet {
		hint = ", and that the pod's nodePublishSecretRef names the same Secret as secretName in the class"
	}
	if len(absent) > 0 {
		has := list(quoteSome(ciphertext.Entries(data)))
		why := fmt.Sprintf("there is no entry %s in it; it has %s", strings.Join(absent, ", "), clip(has, 1000))
		if len(bad) > 0 {
			why += "; " + list(bad)
		}
		return nil, nil, fail(codes.NotFound, "taking entries from "+r.place(), clip(why, 4000), "secretKey (or objectName) under objects in the class"+hint)
	}
	if len(bad) > 0 {
		return nil, nil, fail(codes.FailedPrecondition, "taking entries from "+r.place(), list(bad),
			"how the Secret was written: `secretmanager encrypt` makes its entries"+hint)
	}
	return objects, order, nil
}

// everyEntry returns a file for each entry, by its name.
func (r *request) everyEntry(data map[string][]byte) ([]object, *failure) {
	what := "taking every entry of " + r.place()
	if len(data) == 0 {
		return nil, fail(codes.FailedPrecondition, what, "it has no entries", "how the Secret was written: `secretmanager encrypt` makes its entries")
	}
	var objects []object
	var found problems
	paths := pathSet{target: r.target}
	for _, name := range ciphertext.Entries(data) {
		err := checkEntry(name)
		if err == nil {
			err = paths.add(name, "another entry")
		}
		if err != nil {
			if !found.add("entry " + err.Error()) {
				break
			}
			continue
		}
		objects = append(objects, object{path: name, entry: name, mode: defaultMode})
	}
	if len(found) > 0 {
		return nil, fail(codes.FailedPrecondition, what, list(found), "the names of the Secret's entries, or list objects in the class")
	}
	return objects, nil
}

// quoteSome returns as many names as a message has room for.
func quoteSome(names []string) []string {
	var quoted []string
	for _, name := range names[:min(len(names), 100)] {
		quoted = append(quoted, quote(name))
	}
	return quoted
}

// place names the Secret in messages.
func (r *request) place() string { return "Secret " + r.pod.namespace + "/" + r.secret }

func (r *request) serviceAccount() string { return r.pod.namespace + "/" + r.pod.serviceAccount }
