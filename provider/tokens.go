package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
)

// token is a service account token of the pod, as the kubelet sends it.
type token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expirationTimestamp"`
}

// ownToken is a token whose claims match the pod.
type ownToken struct {
	text    string
	expires time.Time
	claims  podtoken.Claims // unverified
}

// String keeps the token out of logs.
func (t ownToken) String() string { return "(token)" }

// GoString keeps the token out of logs.
func (t ownToken) GoString() string { return "(token)" }

// tokens are the pod's tokens by audience; the empty audience is that of the API server.
type tokens map[string]token

// String keeps the tokens out of logs.
func (t tokens) String() string { return fmt.Sprintf("(%d tokens)", len(t)) }

// GoString keeps the tokens out of logs.
func (t tokens) GoString() string { return t.String() }

// parseTokens parses {"AUDIENCE": {"token": …, "expirationTimestamp": …}}.
func parseTokens(text string) (tokens, error) {
	if err := checkSize(text, maxTokenBytes); err != nil {
		return nil, err
	}
	// JSONSize counts an object and each comma: up to three for a token with two fields.
	if values, _ := document.JSONSize([]byte(text)); values > 3*maxTokens+1 {
		return nil, fmt.Errorf("has more than the limit of %d tokens", maxTokens)
	}
	var t tokens
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		// The decoder's error may quote the input.
		return nil, errors.New("is not the JSON object of tokens that the kubelet sends")
	}
	return t, nil
}

// all returns the texts of all tokens, for [failure.Final].
func (t tokens) all() []string {
	var all []string
	for _, token := range t {
		all = append(all, token.Token)
	}
	return all
}

// pick returns the token of an audience; doing names its purpose in errors. It refuses a token whose claims do not
// match the pod that the kubelet names. The claims are not verified here, so a match grants nothing.
func (t tokens) pick(audience, doing string, pod pod, now time.Time) (ownToken, *failure.Error) {
	found, ok := t[audience]
	what := fmt.Sprintf("choosing the token to %s", doing)
	if !ok || found.Token == "" {
		delivered := "it sent none"
		if len(t) > 0 {
			var names []string
			for name := range t {
				names = append(names, display.Quote(name))
			}
			slices.Sort(names)
			delivered = "it sent those of " + strings.Join(names, ", ")
		}
		return ownToken{}, failure.TokenMissing.New(what,
			fmt.Sprintf("the kubelet sent no service account token for audience %s (%s)", display.Quote(audience), delivered),
			fmt.Sprintf(`that CSIDriver secrets-store.csi.k8s.io has under spec.tokenRequests the line "- audience: %s"`+
				" (or set the parameter audience to one that it has)", yamlAudience(audience)))
	}
	claims, err := podtoken.Parse(found.Token)
	if err != nil {
		return ownToken{}, failure.TokenInvalid.New(what,
			fmt.Sprintf("the token of audience %s is %s", display.Quote(audience), err), tokenCheck)
	}
	if differences := pod.compare(claims); len(differences) > 0 {
		return ownToken{}, failure.TokenMismatch.New(what,
			fmt.Sprintf("the service account token of audience %s belongs to another pod: %s",
				display.Quote(audience), strings.Join(differences, "; ")), tokenCheck)
	}
	expires := claims.Expires
	if !found.Expires.IsZero() && found.Expires.Before(expires) {
		expires = found.Expires
	}
	if !now.Before(expires) {
		return ownToken{}, failure.TokenExpired.New(what,
			fmt.Sprintf("the pod's service account token of audience %s expired at %s, and it is %s",
				display.Quote(audience), expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
			"the clock of the node; the kubelet sends a new token with the next attempt")
	}
	return ownToken{found.Token, expires, claims}, nil
}

const tokenCheck = "that CSIDriver secrets-store.csi.k8s.io has podInfoOnMount: true and tokenRequests, " +
	"and that nothing but the driver connects to the provider's socket"

// compare returns how the claims of a token differ from the pod that the kubelet names. It does not quote the claims,
// which may be any text.
func (p pod) compare(c podtoken.Claims) (differences []string) {
	for _, claim := range []struct{ name, token, attribute, kubelet string }{
		{"namespace", c.Namespace, class.AttributePodNamespace, p.namespace},
		{"serviceaccount.name", c.ServiceAccount, class.AttributeAccount, p.serviceAccount},
		{"pod.name", c.Pod, class.AttributePodName, p.name},
		{"pod.uid", c.PodUID, class.AttributePodUID, p.uid},
	} {
		switch {
		case claim.token == "":
			differences = append(differences, "it has no claim "+claim.name+" (it is bound to no pod)")
		case claim.token != claim.kubelet:
			differences = append(differences, fmt.Sprintf("its claim %s is not the %s %s of the request",
				claim.name, claim.attribute, display.Quote(claim.kubelet)))
		}
	}
	return differences
}

// plainAudience matches audiences that YAML reads as a string without quotes, except yamlWords.
var plainAudience = regexp.MustCompile(`^(https?://)?[A-Za-z][A-Za-z0-9._/-]*$`)

// yamlAudience encodes an audience as a YAML string of one line, so that a user can copy the line safely.
func yamlAudience(audience string) string {
	switch {
	case audience == "":
		return "''"
	case plainAudience.MatchString(audience) && !slices.Contains(yamlWords, strings.ToLower(audience)):
		return display.Clip(audience, 120)
	}
	return display.Quote(audience)
}

// yamlWords are the words that some version of YAML does not read as a string.
var yamlWords = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
