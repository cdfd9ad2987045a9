package kuberetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestBound uses a server that sends nothing, or only the beginning of a response.
func TestBound(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/quick":
			io.WriteString(w, "all")
			return
		case "/begins":
			io.WriteString(w, "beg")
			w.(http.Flusher).Flush()
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stop) })
	var reports atomic.Int32
	client := &http.Client{Transport: &bounded{
		next: server.Client().Transport, timeout: 300 * time.Millisecond, every: 20 * time.Millisecond,
		waiting: func(doing string, waited time.Duration) {
			if doing != "GET /silent" || waited <= 0 {
				t.Errorf("waiting for %q for %v", doing, waited)
			}
			reports.Add(1)
		},
	}}
	get := func(path string) (string, error) {
		resp, err := client.Get(server.URL + path)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	if text, err := get("/quick"); text != "all" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for _, path := range []string{"/silent", "/begins"} {
		if _, err := get(path); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if reports.Load() == 0 {
		t.Error("the wait was not reported")
	}
	// A watch lasts as long as its own context.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/begins?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); ctx.Err() == nil {
		t.Errorf("the watch ended early: %v", err)
	}
}
