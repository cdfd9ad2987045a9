package provider

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// TestTokensInSecrets: since Kubernetes 1.35 the kubelet may deliver the pod's
// tokens in the request's secrets, where the entries of the Secret are too. They
// log in from there, and are no entry.
func TestTokensInSecrets(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.vault.Address, cached)
	good := tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(time.Hour)}})
	const bad = "c4nary, not JSON"
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	for _, test := range []struct {
		name           string
		inAttributes   string
		inSecrets      string
		withoutEntries bool
		reason         *failure.Reason
		texts          []string
	}{
		{name: "in attributes", inAttributes: good},
		{name: "in secrets", inSecrets: good},
		{name: "in both", inAttributes: good, inSecrets: good},
		{name: "in attributes, and something else in secrets", inAttributes: good, inSecrets: bad},
		{name: "in neither", reason: failure.TokenMissing,
			texts: []string{`audience "vault" (it sent none)`, "- audience: vault"}},
		{name: "malformed in attributes", inAttributes: bad, inSecrets: good, reason: failure.InvalidParameters,
			texts: []string{class.AttributeTokens + ": is not the JSON object"}},
		{name: "malformed in secrets", inSecrets: bad, reason: failure.InvalidParameters,
			texts: []string{class.AttributeTokens + ": is not the JSON object"}},
		{name: "another audience in secrets",
			inSecrets: tokensJSON(map[string]token{"other": {canaryToken, time.Time{}}}), reason: failure.TokenMissing,
			texts: []string{`it sent those of "other"`}},
		{name: "expired in secrets",
			inSecrets: tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(-time.Minute)}}),
			reason:    failure.TokenExpired, texts: []string{"expired"}},
		// Without nodePublishSecretRef secrets have the tokens alone: that is no Secret.
		{name: "without a Secret", inSecrets: good, withoutEntries: true, reason: failure.CiphertextMissing,
			texts: []string{"reading Secret " + e.namespace + "/matrix", "neither the Secret nor a token",
				"nodePublishSecretRef: {name: matrix}"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var secrets map[string]string
			if !test.withoutEntries {
				secrets = merged(entries)
			}
			if test.inSecrets != "" {
				if secrets == nil {
					secrets = map[string]string{}
				}
				secrets[class.AttributeTokens] = test.inSecrets
			}
			resp, err := s.Mount(t.Context(), mountRequest(e.params(class.AttributeTokens, test.inAttributes), secrets))
			if test.reason != nil {
				wantError(t, err, test.reason, test.texts...)
				clean(t, append([]string{e.jwt, "not JSON"}, canaries...), err.Error())
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]file{"x": {0o644, canaryPlaintext}}, filesOf(resp)); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("an object that asks for them", func(t *testing.T) {
		_, err := s.Mount(t.Context(),
			mountRequest(e.params(class.AttributeTokens, "", "objects",
				"- {objectName: stolen, secretKey: "+class.AttributeTokens+"}"), merged(entries, class.AttributeTokens, good)))
		if err == nil {
			t.Fatal("the tokens became a file")
		}
		clean(t, []string{e.jwt}, err.Error())
	})
	t.Run("of another pod", func(t *testing.T) {
		foreign := tokensJSON(
			map[string]token{"vault": {issuer().PodToken(e.namespace, "app-1", "uid-1", "app", "vault", time.Hour),
				time.Time{}}})
		for name, request := range map[string]*v1alpha1.MountRequest{
			"in attributes": mountRequest(e.params(class.AttributeTokens, foreign), entries),
			"in secrets":    mountRequest(e.params(class.AttributeTokens, ""), merged(entries, class.AttributeTokens, foreign)),
		} {
			_, err := s.Mount(t.Context(), request)
			wantError(t, err, failure.TokenMismatch, "belongs to another pod", "pod.name", "pod.uid")
			if err == nil {
				t.Error(name)
			}
		}
	})
	t.Run("renewed", func(t *testing.T) {
		c := counting(t, e.vault)
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
