package podtoken_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/podtoken"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestParseRealToken verifies the contract with the API server: a token that it issued
// for a pod has every claim that this package reads.
func TestParseRealToken(t *testing.T) {
	server := testenv.SharedAPIServer(t)
	server.CreateServiceAccount(t, "podtoken", "app")
	token, uid := server.PodToken(t, "podtoken", "app-0", "app", "vault", time.Hour)
	got, err := podtoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(got.Expires); in < 50*time.Minute || in > 70*time.Minute {
		t.Errorf("the token expires in %s, want about an hour", in)
	}
	want := podtoken.Claims{
		Namespace: "podtoken", ServiceAccount: "app", ServiceAccountUID: got.ServiceAccountUID,
		Pod: "app-0", PodUID: uid, Expires: got.Expires,
	}
	if got != want || got.ServiceAccountUID == "" {
		t.Errorf("got %+v, want %+v", got, want)
	}
	unbound, err := podtoken.Parse(server.ServiceAccountToken(t, "podtoken", "app", "vault", time.Hour))
	if err != nil || unbound.Pod != "" || unbound.PodUID != "" {
		t.Errorf("a token without a pod: %+v, %v", unbound, err)
	}
}

func TestParseMalformed(t *testing.T) {
	good := map[string]any{"exp": 1, "kubernetes.io": map[string]any{
		"namespace": "demo", "serviceaccount": map[string]any{"name": "app", "uid": "u"}}}
	if _, err := podtoken.Parse(token("ES256", good)); err != nil {
		t.Fatal(err)
	}
	without := func(name string) map[string]any {
		private := maps.Clone(good["kubernetes.io"].(map[string]any))
		delete(private, name)
		return map[string]any{"exp": 1, "kubernetes.io": private}
	}
	for name, text := range map[string]string{
		"empty":                 "",
		"two parts":             "a.b",
		"dots":                  strings.Repeat(".", 1000),
		"unsigned":              token("none", good),
		"signed with a shared":  token("HS256", good),
		"claims of a list":      token("ES256", []string{"canary"}),
		"claims of other types": token("ES256", map[string]any{"kubernetes.io": "canary"}),
		"no private claims":     token("ES256", map[string]any{"exp": 1}),
		"no namespace":          token("ES256", without("namespace")),
		"no service account":    token("ES256", without("serviceaccount")),
		"a Vault token":         "hvs.canary",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := podtoken.Parse(text)
			if !errors.Is(err, podtoken.ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

// token has the form of a JSON web token and a signature of zeros.
func token(algorithm string, claims any) string {
	segment := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return segment(map[string]any{"alg": algorithm}) + "." + segment(claims) + "." +
		base64.RawURLEncoding.EncodeToString(make([]byte, 64))
}
