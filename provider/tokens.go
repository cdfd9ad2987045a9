package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// token is a service-account token of the pod, as the kubelet hands it over.
type token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expirationTimestamp"`
}

// tokens are the pod's tokens by audience; the empty one is the API server's.
type tokens map[string]token

// String keeps the tokens out of logs.
func (t tokens) String() string { return fmt.Sprintf("(%d tokens)", len(t)) }

// GoString keeps the tokens out of logs.
func (t tokens) GoString() string { return t.String() }

// parseTokens reads {"AUDIENCE": {"token": …, "expirationTimestamp": …}}.
func parseTokens(text string) (tokens, error) {
	var t tokens
	// The decoder's words may repeat part of what it read.
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return nil, errors.New("is not the JSON object of tokens that the kubelet makes")
	}
	return t, nil
}

// all returns the tokens themselves, for [final].
func (t tokens) all() []string {
	var all []string
	for _, token := range t {
		all = append(all, token.Token)
	}
	return all
}

// pick returns the token of an audience. The doing is what it is for.
func (t tokens) pick(audience, doing string, now time.Time) (string, *failure) {
	found, ok := t[audience]
	what := fmt.Sprintf("no token to %s", doing)
	if !ok || found.Token == "" {
		delivered := "none at all came"
		if len(t) > 0 {
			var names []string
			for name := range t {
				names = append(names, quote(name))
			}
			slices.Sort(names)
			delivered = "those of " + strings.Join(names, ", ") + " came"
		}
		return "", fail(codes.FailedPrecondition, what,
			fmt.Sprintf("the kubelet handed over no service-account token of audience %s (%s)", quote(audience), delivered),
			fmt.Sprintf(`that CSIDriver secrets-store.csi.k8s.io has under spec.tokenRequests the line "- audience: %s"`+
				" (or set the parameter audience to one that it has)", yamlAudience(audience)))
	}
	if !found.Expires.IsZero() && !now.Before(found.Expires) {
		return "", fail(codes.Unauthenticated, what,
			fmt.Sprintf("the pod's service-account token of audience %s expired at %s, and it is %s",
				quote(audience), found.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
			"the clock of the node; the kubelet hands over a new token with the next try")
	}
	return found.Token, nil
}

func yamlAudience(audience string) string {
	if audience == "" {
		return "''"
	}
	return clip(audience, 120)
}
