package provider

import (
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
)

// TestTokensInSecrets: since Kubernetes 1.35 the kubelet may send the pod's tokens in
// the secrets of the request, next to the entries of the Secret. The provider logs in
// with them and does not treat them as entries.
func TestTokensInSecrets(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address, cached)
	good := tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(time.Hour)}})
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	for name, test := range map[string]struct{ inAttributes, inSecrets string }{
		"in attributes": {good, ""}, "in secrets": {"", good}, "in both": {good, good},
		"in attributes, and something else in secrets": {good, "c4nary, not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			secrets := merged(entries)
			if test.inSecrets != "" {
				secrets[class.AttributeTokens] = test.inSecrets
			}
			s.mountOne(t, e.params(class.AttributeTokens, test.inAttributes), secrets, canaryPlaintext)
		})
	}
	t.Run("renewed", func(t *testing.T) {
		c := counting(t, e)
		s := serve(t, c.address, cached)
		for _, tokens := range []string{good, good + " ", e.vaultToken(e.namespace, "app", "vault")} {
			if _, err := s.Mount(t.Context(),
				mountRequest(e.params(class.AttributeTokens, ""), merged(entries, class.AttributeTokens, tokens))); err != nil {
				t.Fatal(err)
			}
		}
		c.want(t, "the same ciphertext, with the same token twice and then a new one", 2, 2)
		clean(t, append([]string{e.jwt}, canaries...), s.log.String())
	})
	clean(t, append([]string{e.jwt, "not JSON"}, canaries...), s.log.String())
}
