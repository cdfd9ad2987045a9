package rotator_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A run over good and bad Secrets writes neither plaintext nor ciphertext nor its token to
// the log at any level, the report, the error, the ConfigMap or Events.
func TestNoPlaintextLeaks(t *testing.T) {
	f := newServerFixture(t)
	const plaintext = "c4nary-plaintext"
	good := f.CreateSecret(f.encrypt(f.Namespace, "good", map[string]string{"e": plaintext}))
	copied := f.encrypt(f.Namespace, "elsewhere", map[string]string{"e": plaintext})
	copied.Name = "copied"
	f.CreateSecret(copied)
	label := map[string]string{ciphertext.LabelTransitKey: f.Key}
	f.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "plain", Labels: label},
		StringData: map[string]string{"e": plaintext}})
	damaged := string(good.Data["e"][:len(good.Data["e"])-8]) + "c4nary=="
	f.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "damaged", Labels: label},
		StringData: map[string]string{"e": damaged}})
	f.RotateKey()

	token := f.token(f.rotatorPaths()...)
	var log bytes.Buffer
	report, runErr := rotator.Run(t.Context(), f.Session(f.Vault.Address, token), f.Kube,
		f.options(func(o *rotator.Options) {
			o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 10}))
		}))
	if k := onlyKey(t, report); !errors.Is(runErr, rotator.ErrIncomplete) || k.Rewrapped != 1 || k.Unresolved.Count != 3 {
		t.Fatalf("%v: %+v", runErr, k)
	}
	output := map[string]any{"log": log.String(), "error": runErr.Error(), "report": report}
	state, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(state.Items) < len(rotator.StateNames()) {
		t.Fatalf("%v, %d ConfigMaps", err, len(state.Items))
	}
	output["ConfigMaps"] = state
	events, err := f.Kube.CoreV1().Events(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 3 {
		t.Fatalf("%v, %d Events", err, len(events.Items))
	}
	output["Events"] = events

	secrets := map[string]string{"plaintext": plaintext,
		"plaintext in base64": base64.StdEncoding.EncodeToString([]byte(plaintext)), "token": token}
	for name, text := range map[string][]byte{
		"ciphertext": good.Data["e"], "rewrapped ciphertext": f.GetSecret(f.Namespace, "good").Data["e"],
		"copied ciphertext": copied.Data["e"], "damaged ciphertext": []byte(damaged),
	} {
		payload := strings.SplitN(string(text), ":", 3)[2]
		secrets[name] = payload[:24]
	}
	for where, value := range output {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s is in the %s: %s", name, where, text)
			}
		}
	}
}

// The rotator's policy does not allow to bind a ciphertext to another location, where a
// pod could decrypt it.
func TestRotatorCannotMoveCiphertext(t *testing.T) {
	f := newServerFixture(t)
	s := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
	key := ciphertext.Key{Mount: "transit", Name: f.Key}
	results, err := f.minimal().Rewrap(t.Context(), key, []transit.Item{
		{Data: s.Data["e"], Context: ciphertext.Strict.Context("elsewhere", "s", "e")},
		{Data: s.Data["e"], Context: ciphertext.Cluster.Context(f.Namespace, "s", "e")},
		{Data: s.Data["e"], Context: ciphertext.Strict.Context(f.Namespace, "s", "e")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(results[0].Err, transit.ErrMismatch) || !errors.Is(results[1].Err, transit.ErrMismatch) {
		t.Errorf("ciphertext moved: %v, %v", results[0].Err, results[1].Err)
	}
	if results[2].Err != nil {
		t.Errorf("at its location: %v", results[2].Err)
	}
	_, err = f.minimal().Encrypt(t.Context(), key,
		[]transit.Item{{Data: []byte("x"), Context: ciphertext.Strict.Context(f.Namespace, "s", "e")}})
	if !errors.Is(err, transit.ErrDenied) {
		t.Errorf("the rotator can encrypt: %v", err)
	}
}
