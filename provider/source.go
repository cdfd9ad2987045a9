package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Sources of the ciphertext, for the log.
const (
	fromKubelet = "kubelet"
	fromAPI     = "api-server"
)

// readEntries returns the entries of the ciphertext Secret and their source.
func (p *Provider) readEntries(ctx context.Context, r *request,
	g *memoryGrants) (map[string][]byte, string, *failure.Error) {
	if len(r.delivered) > 0 {
		return r.delivered, fromKubelet, nil
	}
	_, asPod := r.tokens[""]
	if !asPod || p.config.SecretReader == nil {
		why := "the kubelet sent neither the Secret nor a token for the API server to read it as the pod"
		if asPod {
			why = "the kubelet sent no Secret, and the provider has no API server to read it from"
		}
		return nil, "", failure.CiphertextMissing.New("reading "+r.describeSecret(), why,
			fmt.Sprintf("that the pod's volume has under csi the line `nodePublishSecretRef: {name: %s}`; or that "+
				"CSIDriver secrets-store.csi.k8s.io has under spec.tokenRequests the line `- audience: ''` and the pod's "+
				"service account a Role with `get` on that Secret", r.Secret))
	}
	token, failed := r.tokens.pick("", "read "+r.describeSecret()+" as the pod", r.pod, p.now())
	if failed != nil {
		return nil, "", failed
	}
	reserve := func() error { return g.acquireMax(ctx, p, r.pod.namespace) }
	data, err := p.config.SecretReader.read(ctx, r.pod.namespace, r.Secret, token.text, reserve,
		p.metrics.kubernetesRequest)
	if err != nil {
		return nil, fromAPI, p.readFailure(r, err)
	}
	return data, fromAPI, nil
}

// readFailure returns the failure of reading the Secret as the pod.
func (p *Provider) readFailure(r *request, err error) *failure.Error {
	what := fmt.Sprintf("reading %s from %s as service account %s", r.describeSecret(), p.config.SecretReader.host,
		r.serviceAccount())
	why := display.Clip(err.Error(), 500)
	if isTooLong(err) {
		why = fmt.Sprintf("the response is longer than %d MiB, which is more than any Secret", maxSecretResponse>>20)
	}
	if errors.Is(err, errTooManyEntries) {
		return failure.SecretTooLarge.New(what, why, "the Secret: split it into several")
	}
	switch code := statusOf(err); {
	case code == http.StatusNotFound:
		return failure.SecretNotFound.New(what, why,
			"secretName in the class, and that the Secret is in the pod's own namespace")
	case code == http.StatusForbidden:
		// The message has no command that grants the access: only the class asks for this Secret, and that may be wrong.
		return failure.SecretForbidden.New(what, why, fmt.Sprintf(
			"whether the service account is meant to read this Secret: then the pod's volume has under csi the line "+
				"`nodePublishSecretRef: {name: %s}`, or the owner of the namespace gives the account a Role with `get` "+
				"on this one", r.Secret))
	case code == http.StatusUnauthorized:
		return failure.APIServerTokenRejected.New(what, why,
			"that CSIDriver secrets-store.csi.k8s.io has under spec.tokenRequests the line `- audience: ''`, and the clocks "+
				"of the node and of the API server")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return p.timeoutFailure(r, what)
	}
	return failure.APIServerUnavailable.New(what, why,
		"that the API server can be reached from the provider's pod on this node, or use nodePublishSecretRef, which does "+
			"not need it")
}

// selectEntries returns the objects of the volume, and the entries that they need in the order of their first use. All
// of these are well-formed ciphertext: nothing else is ever sent to Vault.
func (r *request) selectEntries(data map[string][]byte, from string) ([]class.Object, []string, *failure.Error) {
	objects := r.Objects
	if objects == nil {
		var failed *failure.Error
		if objects, failed = r.defaultObjects(data); failed != nil {
			return nil, nil, failed
		}
	}
	var order []string
	var missing, malformed failure.Problems
	seen := map[string]bool{}
	for _, o := range objects {
		if seen[o.Entry] {
			continue
		}
		seen[o.Entry] = true
		text, ok := data[o.Entry]
		if !ok {
			if !missing.Add(display.Quote(o.Entry)) {
				break
			}
			continue
		}
		if _, err := ciphertext.Version(text); err != nil {
			if !malformed.Add(fmt.Sprintf("entry %s %s", display.Quote(o.Entry), err)) {
				break
			}
			continue
		}
		order = append(order, o.Entry)
	}
	hint := ""
	if from == fromKubelet {
		hint = ", and that the pod's nodePublishSecretRef names the same Secret as secretName in the class"
	}
	if len(missing) > 0 {
		has := failure.List(quoteSome(ciphertext.Entries(data)))
		why := fmt.Sprintf("the Secret has no entry %s; it has %s", strings.Join(missing, ", "), display.Clip(has, 1000))
		if len(malformed) > 0 {
			why += "; " + failure.List(malformed)
		}
		return nil, nil, failure.EntryNotFound.New("reading entries of "+r.describeSecret(), display.Clip(why, 4000),
			"secretKey (or objectName) under objects in the class"+hint)
	}
	if len(malformed) > 0 {
		return nil, nil, failure.InvalidCiphertext.New("reading entries of "+r.describeSecret(), failure.List(malformed),
			"how the Secret was written: `secretmanager encrypt` writes its entries"+hint)
	}
	return objects, order, nil
}

// defaultObjects returns an object for each entry, with its name as the path.
func (r *request) defaultObjects(data map[string][]byte) ([]class.Object, *failure.Error) {
	what := "reading every entry of " + r.describeSecret()
	if len(data) == 0 {
		return nil, failure.SecretEmpty.New(what, "it has no entries",
			"how the Secret was written: `secretmanager encrypt` writes its entries")
	}
	var objects []class.Object
	var found failure.Problems
	paths := class.NewPathSet(r.target)
	for _, name := range ciphertext.Entries(data) {
		err := class.CheckEntry(name)
		if err == nil {
			err = paths.Add(name, "another entry")
		}
		if err != nil {
			if !found.Add("entry " + display.Quote(name) + " " + err.Error()) {
				break
			}
			continue
		}
		objects = append(objects, class.Object{Path: name, Entry: name, Mode: class.DefaultMode})
	}
	if len(found) > 0 {
		return nil, failure.InvalidEntryName.New(what, failure.List(found),
			"the names of the Secret's entries, or set objects in the class")
	}
	return objects, nil
}

// quoteSome quotes the first 100 names, for a message.
func quoteSome(names []string) []string {
	var quoted []string
	for _, name := range names[:min(len(names), 100)] {
		quoted = append(quoted, display.Quote(name))
	}
	return quoted
}

// describeSecret names the Secret in messages.
func (r *request) describeSecret() string { return "Secret " + r.pod.namespace + "/" + r.Secret }

func (r *request) serviceAccount() string { return r.pod.namespace + "/" + r.pod.serviceAccount }
