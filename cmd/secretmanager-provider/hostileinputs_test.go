package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// objects is a list of n files from one entry, each with the given extra fields.
func objects(entry string, n int, fields ...string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- objectName: f%d\n  secretKey: %s\n", i, entry)
		for _, field := range fields {
			b.WriteString("  " + strings.ReplaceAll(field, "%", fmt.Sprint(i)) + "\n")
		}
	}
	return b.String()
}

func fill(text string, size int) string { return strings.Repeat(text, size/len(text)) }

// inputs returns the inputs of the security findings, and similar ones.
func (w *hostileEnv) inputs(t *testing.T) []hostile {
	const objectsSize = 1_300_000
	small := w.secret(t, hostileNamespace, "value")
	class := func(parameters ...string) func() *v1alpha1.MountRequest {
		return func() *v1alpha1.MountRequest { return w.request(hostileNamespace, small, parameters...) }
	}
	// document is a volume with files from one plaintext.
	document := func(text, objects string) func() *v1alpha1.MountRequest {
		entries := w.secret(t, hostileNamespace, text)
		return func() *v1alpha1.MountRequest { return w.request(hostileNamespace, entries, "objects", objects) }
	}
	var keys strings.Builder // of a YAML document
	for i := 0; keys.Len() < 350_000; i++ {
		fmt.Fprintf(&keys, "%x: a\n", i)
	}
	asPod := func(secret string) func() *v1alpha1.MountRequest {
		return func() *v1alpha1.MountRequest { return w.request(hostileNamespace, noSecret, "secretName", secret) }
	}
	long := w.secret(t, hostileNamespace, fill("v", 700<<10))
	large := w.secret(t, hostileNamespace, fill("x", 40<<10))
	w.secrets.Store(&map[string]string{
		"s":       `{"x":"` + base64.StdEncoding.EncodeToString([]byte(long[len(`{"x":"`):len(long)-len(`"}`)])) + `"}`,
		"endless": `{"x":"` + fill("A", 7<<20) + `"}`,
		"entries": func() string {
			var b strings.Builder
			b.WriteString(`{"z":""`)
			for i := 0; b.Len() < 1_500_000; i++ {
				fmt.Fprintf(&b, `,"%x":""`, i)
			}
			return b.String() + "}"
		}(),
	})
	unknown := map[string]string{}
	for i := range 100_000 {
		unknown[fmt.Sprintf("%x", i)] = ""
	}
	manyEntries := jsonText(unknown)
	tagged := func() string {
		var b strings.Builder
		for i := 0; b.Len() < 500_000; i++ {
			fmt.Fprintf(&b, "%%TAG !%d! x\n", i)
		}
		return b.String() + "--- a"
	}()
	nested := ""
	for i := range 80 {
		nested += fmt.Sprintf(`{"%d":`, i)
	}
	nested += "[" + fill("1,", 300_000) + "1]" + strings.Repeat("}", 80)
	var parts []string
	nestedObjects := ""
	for i := range 80 {
		parts = append(parts, fmt.Sprint(i))
		nestedObjects += fmt.Sprintf("- {objectName: f%d, secretKey: x, encoding: hex, field: %q}\n", i,
			strings.Join(parts, "."))
	}
	cachedRequests := make(chan *v1alpha1.MountRequest, 16)
	for range cap(cachedRequests) {
		cachedRequests <- w.request(hostileNamespace, large, "objects", objects("x", 100))
	}

	// A class and a pod of 1.5 MiB each and a Secret of 1 MiB, whose every byte is six in JSON.
	largest := w.request(hostileNamespace, jsonText(map[string]string{"x": fill("<", 1<<20)}), "objects", fill("<", 3<<20))

	return []hostile{
		// H5: lists that are short as text and have many nodes.
		{"objects: mappings in a mapping", class("objects", "- {"+fill("a: ,", objectsSize)+"}"), false},
		{"objects: anchors", class("objects", "["+fill("&a ,", objectsSize)+"]"), false},
		{"objects: lists", class("objects", "["+fill("[],", objectsSize)+"]"), false},
		{"objects: empty items", class("objects", fill("-\n", objectsSize)), false},
		// The same, with the maximum length.
		{"objects: mappings, at the limit of bytes", class("objects", "- {"+fill("a: ,", 500_000)+"}"), false},
		{"objects: comments", class("objects", "- {objectName: x}\n"+fill("#\n- a\n", 500_000)), false},
		{"objects: tag directives", class("objects", tagged), false},
		{"objects: nested", class("objects", fill("[", 500_000)), false},
		{"objects: deep paths", class("objects", func() string {
			var b strings.Builder
			for i := range 120 {
				fmt.Fprintf(&b, "- {objectName: %d%s, secretKey: x}\n", i, fill("/a", 3800))
			}
			return b.String()
		}()), false},
		{"objects: a field of many parts", class("objects", "- {objectName: x, field: "+fill("a.", 400_000)+"a}"), false},
		// H6: needs more memory than the request.
		{"Secret of 1 MiB read as the pod", asPod("s"), true},
		{"answers of 4 MiB", func() *v1alpha1.MountRequest {
			return w.request(hostileNamespace, large, "objects", objects("x", 100))
		}, true},
		{"fields of a JSON document", document("["+fill("[],", 700_000)+"[]]", objects("x", 10, "field: '1'")), false},
		{"Secret of 1 MiB from the kubelet", func() *v1alpha1.MountRequest {
			return w.request(hostileNamespace, long)
		}, true},
		{"Secret read as the pod that does not end", asPod("endless"), false},
		{"Secret read as the pod with many entries", asPod("entries"), false},
		{"fields of a JSON document with many objects",
			document("["+fill(`{"":0},`, 700_000)+"0]", objects("x", 10, "field: '1'")), false},
		{"fields of a YAML document", document(fill("-\n", 700_000), objects("x", 10, "field: '1'")), false},
		{"fields of a nested document", document(strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000),
			objects("x", 10, "field: '0'")), false},
		// M7: unbounded work.
		{"objects that each fail", document(keys.String(), objects("x", 2000, "field: missing%")), false},
		{"objects that each read a document",
			document("{x: &x 1, a: ["+fill("1,", 90_000)+"*x]}", objects("x", 2000, "field: a")), false},
		{"objects that decode to nearly nothing",
			document("aG"+fill("\n", 700<<10)+"k=", objects("x", 2000, "encoding: base64")), false},
		{"fields within each other that do not decode", document(nested, nestedObjects), false},
		{"many unknown parameters", func() *v1alpha1.MountRequest {
			r := w.request(hostileNamespace, small)
			r.Attributes = strings.TrimSuffix(r.Attributes, "}") + "," + strings.TrimPrefix(manyEntries, "{")
			return r
		}, false},
		{"long parameters", class("roleName", fill("r", 900_000), "audience", fill("'\n", 300_000)), false},
		{"tokens of many audiences", func() *v1alpha1.MountRequest {
			var b strings.Builder
			b.WriteString(`{"vault":{}`)
			for i := 0; b.Len() < 900_000; i++ {
				fmt.Fprintf(&b, `,"%x":{}`, i)
			}
			return w.request(hostileNamespace, small, "csi.storage.k8s.io/serviceAccount.tokens", b.String()+"}")
		}, false},
		{"Secret with many entries", func() *v1alpha1.MountRequest {
			return w.request(hostileNamespace, manyEntries)
		}, false},
		{"the largest request", func() *v1alpha1.MountRequest { return largest }, false},
		{"a long target path", func() *v1alpha1.MountRequest {
			request := w.request(hostileNamespace, small)
			request.TargetPath = fill("/t", 3<<20)
			return request
		}, false},
		// A cached response needs memory when it is sent.
		{"repeated answers of 4 MiB", func() *v1alpha1.MountRequest {
			request := <-cachedRequests
			cachedRequests <- request
			return request
		}, true},
	}
}

// serveSecrets is a fake API server. It accepts every client, because the test is
// about how the provider processes the response.
func (w *hostileEnv) serveSecrets(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		data := (*w.secrets.Load())[path.Base(r.URL.Path)]
		out.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(out, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":%q},"data":%s}`, path.Base(r.URL.Path), data)
	}))
	t.Cleanup(server.Close)
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(
		`{"kind": "Config", "apiVersion": "v1", "current-context": "c",
			"clusters": [{"name": "c", "cluster": {"server": %q}}],
"contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, server.URL)
	if err := os.WriteFile(w.kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}
