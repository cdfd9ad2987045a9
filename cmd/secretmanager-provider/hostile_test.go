package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// memoryLimit and softMemoryLimit are those of manifests/provider/daemonset.yaml,
	// which TestHostileInputs compares them with.
	memoryLimit     = 256 << 20
	softMemoryLimit = "216MiB"

	// atOnce is how many volumes of one namespace a hostile input mounts together.
	atOnce = 100
	// neighborLimit bounds a mount of another namespace meanwhile. Continuous integration
	// also runs this test without the race detector (make test-fips).
	neighborLimit = 2 * time.Second * slowdown
)

// hostile is one input that an author can write, as the volumes that mount it.
type hostile struct {
	name    string
	request func() *v1alpha1.MountRequest
	// valid is set where nothing is wrong with the input but its size: alone it mounts.
	valid bool
}

// TestHostileInputs runs the program with the memory of its DaemonSet and sends it
// what an author in one namespace may write to take the node's provider down: each
// input alone and by 100 volumes at once. The process survives, a pod of another
// namespace mounts within two seconds meanwhile, and every answer has a code that
// the kubelet takes for final.
func TestHostileInputs(t *testing.T) {
	checkManifestMemory(t)
	w := newHostileWorld(t)
	p := startProvider(t, w)
	w.fillRepublishCache(t, p)

	var table bytes.Buffer
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "input\tpeak, alone\tpeak, 100 at once\ttook\tslowest neighbor\tanswers")
	for _, input := range w.inputs(t) {
		t.Run(input.name, func(t *testing.T) {
			if p.exited() {
				p = startProvider(t, w) // so that the other inputs are measured too
			}
			p.resetPeak()
			request := input.request()
			_, err := p.client.Mount(t.Context(), request)
			if code := status.Code(err); !final[code] || input.valid && code != codes.OK {
				t.Errorf("alone: %s: %v", code, err)
			}
			alone := p.peak(t)

			p.resetPeak()
			var took, slowest time.Duration
			var answers map[codes.Code]int
			// A machine that was busy with something else is not so each time.
			for range 3 {
				took, slowest, answers = w.storm(t, p, input)
				for code := range answers {
					if !final[code] {
						t.Errorf("%d at once: %d answers are %s", atOnce, answers[code], code)
					}
				}
				if slowest <= neighborLimit || p.exited() {
					break
				}
				t.Logf("a mount of the neighbor took %s", slowest)
			}
			if slowest > neighborLimit {
				t.Errorf("a mount of the neighbor took %s, and more than %s each time before", slowest, neighborLimit)
			}
			if p.exited() {
				t.Errorf("the provider died: %v\n%s", p.err, p.log.tail())
				fmt.Fprintf(rows, "%s\tkilled\t\t\t\t%v\n", input.name, answers)
				return
			}
			fmt.Fprintf(rows, "%s\t%d MiB\t%d MiB\t%.1f s\t%d ms\t%v\n", input.name, alone>>20, p.peak(t)>>20,
				took.Seconds(), slowest.Milliseconds(), answers)
		})
	}
	rows.Flush()
	t.Logf("memory by %s\n%s", p.memory.how, table.String())
}

// final are the codes that an answer may have; see package provider.
var final = map[codes.Code]bool{
	codes.OK: true, codes.InvalidArgument: true, codes.NotFound: true, codes.PermissionDenied: true,
	codes.Unauthenticated: true, codes.FailedPrecondition: true, codes.Internal: true,
}

// checkManifestMemory: the limits here are those of the DaemonSet.
func checkManifestMemory(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../../manifests/provider/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{fmt.Sprintf("memory: %dMi", memoryLimit>>20),
		"{name: GOMEMLIMIT, value: " + softMemoryLimit + "}"} {
		if !strings.Contains(string(text), line) {
			t.Fatalf("manifests/provider/daemonset.yaml does not have %q", line)
		}
	}
}

// storm mounts an input by many volumes at once, and volumes of the neighbor one
// after the other until all of those have their answer.
func (w *hostileWorld) storm(t *testing.T, p *runningProvider,
	input hostile) (took, slowest time.Duration, answers map[codes.Code]int) {
	// As bytes, so that the driver's share of the work does not count.
	requests := make([]*encoded, atOnce)
	marshaled := map[*v1alpha1.MountRequest]*encoded{}
	for i := range requests {
		request := input.request()
		if marshaled[request] == nil {
			data, err := proto.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			marshaled[request] = &encoded{data}
		}
		requests[i] = marshaled[request]
	}
	began := time.Now()
	answers = map[codes.Code]int{}
	var mu sync.Mutex
	var sent sync.WaitGroup
	for _, request := range requests {
		sent.Go(func() {
			err := p.conn.Invoke(t.Context(), v1alpha1.CSIDriverProvider_Mount_FullMethodName, request,
				&v1alpha1.MountResponse{}, grpc.ForceCodecV2(encodedCodec{}))
			mu.Lock()
			defer mu.Unlock()
			answers[status.Code(err)]++
		})
	}
	var done atomic.Bool
	elapsed := make(chan time.Duration, 1)
	go func() {
		sent.Wait()
		elapsed <- time.Since(began)
		done.Store(true)
	}()
	for n := 0; n < 3 || !done.Load(); n++ {
		if p.exited() {
			break
		}
		request := w.neighborRequest()
		start := time.Now()
		_, err := p.client.Mount(t.Context(), request)
		slowest = max(slowest, time.Since(start))
		if err != nil {
			t.Errorf("the neighbor's mount: %v", err)
			break
		}
	}
	return <-elapsed, slowest, answers
}

// encoded is a request as it is sent.
type encoded struct{ data []byte }

type encodedCodec struct{}

func (encodedCodec) Name() string { return "proto" }

func (encodedCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*encoded).data)}, nil
}

func (encodedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// hostileWorld is a Vault with two namespaces, and what stands for the API server.
type hostileWorld struct {
	vault      *testenv.Vault
	issuer     *testenv.JWTIssuer
	kubeconfig string
	secrets    atomic.Pointer[map[string]string] // by name: data that the API server has, as JSON
	pods       atomic.Int64
	neighbor   string // its Secret
}

const (
	hostileNamespace  = "hostile"
	neighborNamespace = "neighbor"
)

func newHostileWorld(t *testing.T) *hostileWorld {
	t.Helper()
	w := &hostileWorld{vault: testenv.SharedVault(t)}
	var err error
	if w.issuer, err = testenv.NewJWTIssuer(); err != nil {
		t.Fatal(err)
	}
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := w.vault.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/auth/hostile", map[string]any{"type": "jwt"})
	if err := w.vault.TrustIssuer(t.Context(), "hostile", w.issuer); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{hostileNamespace, neighborNamespace} {
		write("transit/keys/"+namespace, map[string]any{"derived": true})
		write("sys/policies/acl/"+namespace,
			map[string]any{"policy": fmt.Sprintf(`path "transit/decrypt/%s" { capabilities = ["update"] }`, namespace)})
		err := w.vault.AllowLogin(t.Context(), testenv.Role{
			Mount: "hostile", Name: namespace, Namespace: namespace, ServiceAccount: "app", Policies: []string{namespace},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.neighbor = w.secret(t, neighborNamespace, "value")
	w.serveSecrets(t)
	return w
}

// encrypt returns a text as an entry of the namespace's Secret.
func (w *hostileWorld) encrypt(t *testing.T, namespace, entry, text string) string {
	t.Helper()
	client, err := transit.NewClient(transit.Config{Address: w.vault.Address})
	if err != nil {
		t.Fatal(err)
	}
	results, err := client.Session("", transit.StaticToken(w.vault.RootToken)).
		Encrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: namespace},
			[]transit.Item{{Data: []byte(text), Context: []byte("strict:" + namespace + "/s/" + entry)}})
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Err != nil {
		t.Fatal(results[0].Err)
	}
	return string(results[0].Data)
}

// secret returns a Secret with a text as its entry x, as the driver sends it.
func (w *hostileWorld) secret(t *testing.T, namespace, text string) string {
	t.Helper()
	return jsonText(map[string]string{"x": w.encrypt(t, namespace, "x", text)})
}

// noSecret is what the driver sends where the kubelet read no Secret.
const noSecret = "null"

// request is the mount of a new pod. Parameters come after those that every class
// has; secrets are the entries of the Secret that the kubelet read, as JSON.
func (w *hostileWorld) request(namespace, secrets string, parameters ...string) *v1alpha1.MountRequest {
	pod := fmt.Sprintf("app-%d", w.pods.Add(1))
	uid := "uid-" + pod
	token := func(audience string) map[string]any {
		claims := w.issuer.Claims(namespace, "app", audience, time.Hour)
		claims["kubernetes.io"].(map[string]any)["pod"] = map[string]any{"name": pod, "uid": uid}
		return map[string]any{"token": w.issuer.Sign(claims), "expirationTimestamp": time.Now().Add(time.Hour)}
	}
	tokens := map[string]any{"vault": token("vault")}
	if secrets == noSecret {
		tokens[""] = token("")
	}
	const kubelet = "csi.storage.k8s.io/"
	attributes := map[string]string{
		"roleName": namespace, "secretName": "s", "transitKey": namespace, "secretProviderClass": "c",
		kubelet + "pod.namespace": namespace, kubelet + "pod.name": pod, kubelet + "pod.uid": uid,
		kubelet + "serviceAccount.name": "app",
		kubelet + "ephemeral":           "true", kubelet + "serviceAccount.tokens": jsonText(tokens),
	}
	for i := 0; i < len(parameters); i += 2 {
		attributes[parameters[i]] = parameters[i+1]
	}
	return &v1alpha1.MountRequest{
		Attributes: jsonText(attributes), Secrets: secrets, Permission: "420",
		TargetPath: "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/secrets/mount",
	}
}

func (w *hostileWorld) neighborRequest() *v1alpha1.MountRequest {
	return w.request(neighborNamespace, w.neighbor)
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// fillRepublishCache leaves as little memory as a node can have.
func (w *hostileWorld) fillRepublishCache(t *testing.T, p *runningProvider) {
	t.Helper()
	entries := w.secret(t, hostileNamespace, strings.Repeat("x", 40<<10))
	for range 17 {
		if _, err := p.client.Mount(t.Context(),
			w.request(hostileNamespace, entries, "objects", objects("x", 100))); err != nil {
			t.Fatal(err)
		}
	}
}

// objects is a list of n files that are made of one entry, each with the further fields.
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

// inputs are those of the findings, and others of their kind.
func (w *hostileWorld) inputs(t *testing.T) []hostile {
	const objectsSize = 1_300_000
	small := w.secret(t, hostileNamespace, "value")
	class := func(parameters ...string) func() *v1alpha1.MountRequest {
		return func() *v1alpha1.MountRequest { return w.request(hostileNamespace, small, parameters...) }
	}
	// document is a volume with files out of one plaintext.
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
		// H5: lists that are short as text and long as nodes.
		{"objects: mappings in a mapping", class("objects", "- {"+fill("a: ,", objectsSize)+"}"), false},
		{"objects: anchors", class("objects", "["+fill("&a ,", objectsSize)+"]"), false},
		{"objects: lists", class("objects", "["+fill("[],", objectsSize)+"]"), false},
		{"objects: empty items", class("objects", fill("-\n", objectsSize)), false},
		// The same, as long as is allowed.
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
		// H6: what is held is more than the request.
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
		// M7: work without end.
		{"objects that each fail", document(keys.String(), objects("x", 2000, "field: missing%")), false},
		{"objects that each read a document",
			document("{x: &x 1, a: ["+fill("1,", 90_000)+"*x]}", objects("x", 2000, "field: a")), false},
		{"objects that decode to nearly nothing",
			document("aG"+fill("\n", 700<<10)+"k=", objects("x", 2000, "encoding: base64")), false},
		{"fields within each other that do not decode", document(nested, nestedObjects), false},
		{"many unknown parameters", func() *v1alpha1.MountRequest {
			return w.request(hostileNamespace, small, pairs(unknown)...)
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
		// What is in the cache costs memory when it is sent.
		{"repeated answers of 4 MiB", func() *v1alpha1.MountRequest {
			request := <-cachedRequests
			cachedRequests <- request
			return request
		}, true},
	}
}

func pairs(m map[string]string) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name, m[name])
	}
	return all
}

// serveSecrets serves what the API server would. It answers every client: what is
// under test is what the provider does with the answer.
func (w *hostileWorld) serveSecrets(t *testing.T) {
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
