package inventory

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A list of several pages is seen to its end, also when the API server forgets in
// between where it began, as it does after some minutes.
func TestEachCiphertext(t *testing.T) {
	server := testenv.SharedAPIServer(t)
	kube, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	ns := "verify-list"
	server.CreateNamespace(t, ns)
	const n = 5*firstPage + 5 // a first page, one that is four times as long, and five Secrets
	for i := range n {
		_, err := kube.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i), Labels: map[string]string{ciphertext.LabelTransitKey: "k"}},
			Data:       map[string][]byte{"a": []byte("vault:v1:AAAA")},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages, forget := 0, false
	config := rest.CopyConfig(server.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			pages++
			token := r.URL.Query().Get("continue")
			if token == "" || !forget {
				return next.RoundTrip(r)
			}
			forget = false
			return &http.Response{StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(expired(t, token)))}, nil
		})
	})
	kube, err = kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, forget = range []bool{false, true} {
		seen := map[string]int{}
		forgets := forget
		pages = 0
		unread, err := EachCiphertext(t.Context(), kube, ns, "", func(s *corev1.Secret) error { seen[s.Name]++; return nil })
		if unread != nil || err != nil || len(seen) != n || seen["s0"] != 1 {
			t.Errorf("forgets %t: %d of %d (%v, %v)", forgets, len(seen), n, unread, err)
		}
		if want := map[bool]int{false: 4, true: 5}[forgets]; pages != want {
			t.Errorf("forgets %t: %d requests, not %d", forgets, pages, want)
		}
	}
	// What ends the work ends the list.
	stop, calls := errors.New("stop"), 0
	unread, err := EachCiphertext(t.Context(), kube, ns, "", func(*corev1.Secret) error { calls++; return stop })
	if unread != nil || !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls (%v, %v)", calls, unread, err)
	}
	unread, err = EachCiphertext(t.Context(), kube, ns, "a b", func(*corev1.Secret) error { return nil })
	if unread == nil || err != nil {
		t.Errorf("a list that is refused: %v, %v", unread, err)
	}
}

// expired is what the API server answers to a token that is too old: one that goes
// on from the same place, in what is there by now.
func expired(t *testing.T, token string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	var place map[string]any
	if err := json.Unmarshal(raw, &place); err != nil {
		t.Fatal(err)
	}
	place["rv"] = -1
	if raw, err = json.Marshal(place); err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: http.StatusGone,
		ListMeta: metav1.ListMeta{Continue: base64.RawURLEncoding.EncodeToString(raw)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return status
}
