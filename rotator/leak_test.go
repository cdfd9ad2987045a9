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

// A run over good and bad Secrets leaves neither ciphertext nor plaintext nor its
// own token in what it says: log at every level, report, error, ConfigMap, Events.
func TestNothingLeaks(t *testing.T) {
	w := newWorld(t)
	const plaintext = "c4nary-plaintext"
	good := w.store(w.seal(w.ns, "good", map[string]string{"e": plaintext}))
	copied := w.seal(w.ns, "elsewhere", map[string]string{"e": plaintext})
	copied.Name = "copied"
	w.store(copied)
	label := map[string]string{ciphertext.LabelTransitKey: w.key}
	w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "plain", Labels: label},
		StringData: map[string]string{"e": plaintext}})
	damaged := string(good.Data["e"][:len(good.Data["e"])-8]) + "c4nary=="
	w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "damaged", Labels: label},
		StringData: map[string]string{"e": damaged}})
	w.rotateKey()

	token := w.token(w.rotatorPaths()...)
	var log bytes.Buffer
	report, runErr := rotator.Run(t.Context(), w.session(w.vault.Address, token), w.kube,
		w.options(func(o *rotator.Options) {
			o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 10}))
		}))
	if k := only(t, report); !errors.Is(runErr, rotator.ErrIncomplete) || k.Rewrapped != 1 || k.LeftCount != 3 {
		t.Fatalf("%v: %+v", runErr, k)
	}
	said := map[string]any{"log": log.String(), "error": runErr.Error(), "report": report}
	var err error
	if said["ConfigMap"], err = w.kube.CoreV1().ConfigMaps(w.ns).
		Get(t.Context(), rotator.StateName, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	events, err := w.kube.CoreV1().Events(w.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 3 {
		t.Fatalf("%v, %d Events", err, len(events.Items))
	}
	said["Events"] = events

	secrets := map[string]string{"plaintext": plaintext,
		"plaintext in base64": base64.StdEncoding.EncodeToString([]byte(plaintext)), "token": token}
	for name, text := range map[string][]byte{
		"ciphertext": good.Data["e"], "rewrapped ciphertext": w.get(w.ns, "good").Data["e"],
		"copied ciphertext": copied.Data["e"], "damaged ciphertext": []byte(damaged),
	} {
		payload := strings.SplitN(string(text), ":", 3)[2]
		secrets[name] = payload[:24]
	}
	for where, what := range said {
		text, err := json.Marshal(what)
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

// What the rotator may do in Vault does not let it bind a ciphertext to another
// place, where a pod of its choice would open it.
func TestRotatorCannotMoveCiphertext(t *testing.T) {
	w := newWorld(t)
	s := w.seal(w.ns, "s", map[string]string{"e": "x"})
	key := ciphertext.Key{Mount: "transit", Name: w.key}
	results, err := w.minimal().Rewrap(t.Context(), key, []transit.Item{
		{Data: s.Data["e"], Context: ciphertext.Strict.Context("elsewhere", "s", "e")},
		{Data: s.Data["e"], Context: ciphertext.Cluster.Context(w.ns, "s", "e")},
		{Data: s.Data["e"], Context: ciphertext.Strict.Context(w.ns, "s", "e")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(results[0].Err, transit.ErrMismatch) || !errors.Is(results[1].Err, transit.ErrMismatch) {
		t.Errorf("ciphertext moved: %v, %v", results[0].Err, results[1].Err)
	}
	if results[2].Err != nil {
		t.Errorf("in its place: %v", results[2].Err)
	}
	_, err = w.minimal().Encrypt(t.Context(), key,
		[]transit.Item{{Data: []byte("x"), Context: ciphertext.Strict.Context(w.ns, "s", "e")}})
	if !errors.Is(err, transit.ErrDenied) {
		t.Errorf("it can make ciphertext of its own: %v", err)
	}
}
