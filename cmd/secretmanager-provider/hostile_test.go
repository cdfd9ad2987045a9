package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
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
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

const (
	// memoryLimit and softMemoryLimit are those of manifests/provider/daemonset.yaml.
	// TestHostileInputs compares them.
	memoryLimit     = 256 << 20
	softMemoryLimit = "216MiB"

	// neighborLimit bounds a concurrent mount of another namespace.
	neighborLimit = 2 * time.Second * slowdown
)

// hostile is an input that an author can write, as a request to mount it.
type hostile struct {
	name    string
	request func() *v1alpha1.MountRequest
	// valid means that only the size of the input is hostile: a single mount succeeds.
	valid bool
}

// TestHostileInputs runs the program with the memory limit of its DaemonSet and sends it
// what an author in one namespace may write to make the node's provider fail: each input
// alone and by 100 volumes at once (see atOnce). The process survives, a pod of another namespace
// mounts within two seconds during that, and every response has a code that the kubelet
// treats as final.
func TestHostileInputs(t *testing.T) {
	checkManifestMemory(t)
	w := newHostileEnv(t)
	p := startProvider(t, w)
	w.fillRepublishCache(t, p)

	var table bytes.Buffer
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "input\tpeak, alone\tpeak, 100 at once\ttook\tslowest neighbor\tanswers")
	for _, input := range w.inputs(t) {
		t.Run(input.name, func(t *testing.T) {
			if p.exited() {
				p = startProvider(t, w) // to test the other inputs too
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
			// A machine that is busy with something else is not busy each time.
			for range 3 {
				took, slowest, answers = w.storm(t, p, input)
				for code := range answers {
					if !final[code] {
						t.Errorf("%d at once: %d responses have code %s", atOnce, answers[code], code)
					}
				}
				if slowest <= neighborLimit || p.exited() {
					break
				}
				t.Logf("a mount of the neighbor took %s", slowest)
			}
			if slowest > neighborLimit {
				t.Errorf("a mount of the neighbor took %s, and more than %s in each attempt before", slowest, neighborLimit)
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

// final are the codes that a response may have; see package provider.
var final = map[codes.Code]bool{
	codes.OK: true, codes.InvalidArgument: true, codes.NotFound: true, codes.PermissionDenied: true,
	codes.Unauthenticated: true, codes.FailedPrecondition: true, codes.Internal: true,
}

// checkManifestMemory verifies that the limits here are those of the DaemonSet.
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
// after the other until all of the former have a response.
func (w *hostileEnv) storm(t *testing.T, p *runningProvider,
	input hostile) (took, slowest time.Duration, answers map[codes.Code]int) {
	// Encoded in advance, so that the driver's share of the work does not count.
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

// encoded is an encoded request.
type encoded struct{ data []byte }

type encodedCodec struct{}

func (encodedCodec) Name() string { return "proto" }

func (encodedCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*encoded).data)}, nil
}

func (encodedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// hostileEnv is a Vault with two namespaces, and a fake API server.
type hostileEnv struct {
	*fixture.Transit
	kubeconfig string
	secrets    atomic.Pointer[map[string]string] // by name: data of Secrets in the API server, as JSON
	pods       atomic.Int64
	neighbor   string // the Secret of the neighbor
}

const (
	hostileNamespace  = "hostile"
	neighborNamespace = "neighbor"
)

func newHostileEnv(t *testing.T) *hostileEnv {
	t.Helper()
	w := &hostileEnv{Transit: fixture.NewTransit(t)}
	w.Write("sys/auth/hostile", map[string]any{"type": "jwt"})
	w.Must(w.Vault.TrustIssuer(t.Context(), "hostile", fixture.Issuer()))
	for _, namespace := range []string{hostileNamespace, neighborNamespace} {
		w.CreateKey(namespace, true)
		w.AllowLogin(testenv.Role{
			Mount: "hostile", Name: namespace, Namespace: namespace, ServiceAccount: "app",
			Policies: []string{w.Policy(fmt.Sprintf(`path "transit/decrypt/%s" { capabilities = ["update"] }`, namespace))},
		})
	}
	w.neighbor = w.secret(t, neighborNamespace, "value")
	w.serveSecrets(t)
	return w
}

// encrypt returns a text encrypted for an entry of the namespace's Secret.
func (w *hostileEnv) encrypt(t *testing.T, namespace, entry, text string) string {
	t.Helper()
	return w.Encrypt(ciphertext.Key{Mount: "transit", Name: namespace}, []byte("strict:"+namespace+"/s/"+entry), text)
}

// secret returns a Secret with a text as its entry x, in the driver's form.
func (w *hostileEnv) secret(t *testing.T, namespace, text string) string {
	t.Helper()
	return jsonText(map[string]string{"x": w.encrypt(t, namespace, "x", text)})
}

// noSecret is what the driver sends if the kubelet read no Secret.
const noSecret = "null"

// request is the mount of a new pod. The parameters follow those of every class;
// secrets are the entries of the Secret that the kubelet read, as JSON.
func (w *hostileEnv) request(namespace, secrets string, parameters ...string) *v1alpha1.MountRequest {
	pod := fmt.Sprintf("app-%d", w.pods.Add(1))
	uid := "uid-" + pod
	token := func(audience string) map[string]any {
		claims := fixture.Issuer().Claims(namespace, "app", audience, time.Hour)
		claims["kubernetes.io"].(map[string]any)["pod"] = map[string]any{"name": pod, "uid": uid}
		return map[string]any{"token": fixture.Issuer().Sign(claims), "expirationTimestamp": time.Now().Add(time.Hour)}
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

func (w *hostileEnv) neighborRequest() *v1alpha1.MountRequest {
	return w.request(neighborNamespace, w.neighbor)
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// fillRepublishCache fills the cache, so that as little memory as possible is free.
func (w *hostileEnv) fillRepublishCache(t *testing.T, p *runningProvider) {
	t.Helper()
	entries := w.secret(t, hostileNamespace, strings.Repeat("x", 40<<10))
	for range 17 {
		if _, err := p.client.Mount(t.Context(),
			w.request(hostileNamespace, entries, "objects", objects("x", 100))); err != nil {
			t.Fatal(err)
		}
	}
}
