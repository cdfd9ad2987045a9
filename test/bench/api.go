package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/relay"
)

// post creates an object as the cluster's administrator and decodes the response into out.
func (e *environment) post(ctx context.Context, path string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.api.Address+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return send(e.admin, req, out)
}

// apiPod creates a pod of the reader, which does not run, and returns its uid and a token
// for the API server.
func (e *environment) apiPod(ctx context.Context, name string) (uid, token string, err error) {
	path := "/api/v1/namespaces/" + namespace
	var made corev1.Pod
	err = e.post(ctx, path+"/pods", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		ServiceAccountName: reader, Containers: []corev1.Container{{Name: "app", Image: "app"}},
	}}, &made)
	if err != nil {
		return "", "", err
	}
	seconds := int64(3600)
	var granted authenticationv1.TokenRequest
	err = e.post(ctx, path+"/serviceaccounts/"+reader+"/token",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: &seconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: made.UID},
		}}, &granted)
	return string(made.UID), granted.Status.Token, err
}

// send sends a request and decodes the JSON of the response. It returns an error for a
// status of 400 and above. It reads the whole body, to reuse the connection.
func send(client *http.Client, req *http.Request, out any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err)
	}
	return nil
}

// A counter is a proxy of a server that counts requests.
type counter struct {
	*httptest.Server
	requests atomic.Int64
}

func newCounter(address string, transport http.RoundTripper) (*counter, error) {
	proxy, err := relay.New(address, transport)
	if err != nil {
		return nil, err
	}
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	return c, nil
}
