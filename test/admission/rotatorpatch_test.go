package admission

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// storeTargets stores the Secrets that the patches change, and returns them.
func (w *fixture) storeTargets() []*corev1.Secret {
	w.t.Helper()
	owned := func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: "1"}}
	}
	held := func(s *corev1.Secret) { s.Finalizers = []string{"example.com/hold"} }
	immutable := func(is bool) func(*corev1.Secret) { return func(s *corev1.Secret) { s.Immutable = &is } }
	scoped := func(s *corev1.Secret) {
		s.Annotations = map[string]string{ciphertext.AnnotationScope: "namespace", ciphertext.AnnotationTransitMount: "t",
			ciphertext.AnnotationRewrapped: "3", lastApplied: `{"data":{"good":"old"}}`, "example.com/note": "x"}
		label(ciphertext.LabelKeyVersion, "3")(s)
		label("team", "red")(s)
	}
	versions := func(s *corev1.Secret) {
		for _, version := range []string{"1", "9", "10", "99", "100", "999", "1000", "99999", "100000", "999999"} {
			entry("v"+version, string(text(version)))(s)
		}
		entry("shortest", string(textOf("1", 28)))(s)
	}
	// Text that is similar to ciphertext.
	similar := func(s *corev1.Secret) {
		entry("short", string(textOf("1", 27)))(s)
		entry("case", strings.Replace(string(text("1")), "vault", "Vault", 1))(s)
		entry("version", string(text("1;")))(s)
	}
	secrets := []*corev1.Secret{
		secret("typed", versions, scoped),
		secret("bare", func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }),
		secret("adopted", opaque, versions, scoped, owned, held, immutable(false)),
		secret("mixed", opaque, versions, similar, entry("password", value), entry("empty", ""), scoped),
		secret("immutable", immutable(true), scoped),
		secret("terminating", scoped, owned, held),
		plain("plain-text", scoped, unlabel),
		plain("plain-ciphertext", versions, scoped, unlabel),
	}
	for i, s := range secrets {
		stored, err := w.kube.CoreV1().Secrets(w.ns).Create(w.t.Context(), s, metav1.CreateOptions{})
		w.must(err)
		if s.Name == "terminating" {
			w.must(w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), s.Name, metav1.DeleteOptions{}))
			stored, err = w.kube.CoreV1().Secrets(w.ns).Get(w.t.Context(), s.Name, metav1.GetOptions{})
			w.must(err)
		}
		secrets[i] = stored
	}
	return secrets
}

// attempt is a patch of a Secret.
type attempt struct {
	old, desired *corev1.Secret
	changes      string
	names        []string // of the changes
	invalid      bool     // the API server refuses it for another reason
	kind         types.PatchType
	patch        []byte
	options      metav1.PatchOptions
}

// newAttempt returns a patch with legal changes, and in half of all cases with one that is not.
func newAttempt(number int, stored []*corev1.Secret) *attempt {
	random := rand.New(rand.NewPCG(14, uint64(number)))
	var legal, illegal []change
	for _, c := range changes {
		if c.legal {
			legal = append(legal, c)
		} else {
			illegal = append(illegal, c)
		}
	}
	for {
		a := &attempt{old: pick(random, stored), options: metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}}
		a.desired = a.old.DeepCopy()
		random.Shuffle(len(legal), func(i, j int) { legal[i], legal[j] = legal[j], legal[i] })
		for _, c := range legal[:random.IntN(len(legal)+1)] {
			a.apply(random, c)
		}
		if number%2 == 0 && !a.apply(random, illegal[number/2%len(illegal)]) {
			continue // with another Secret
		}
		a.changes = strings.Join(a.names, ", ")
		if strings.HasPrefix(a.old.Name, "plain-") {
			a.names = []string{notOurs} // which is why the policy denies it
		}
		a.encode(random)
		return a
	}
}

// apply applies a change, and reports whether it has an effect on this Secret.
func (a *attempt) apply(random *rand.Rand, c change) bool {
	before := a.desired.DeepCopy()
	c.make(random, a.desired)
	if equality.Semantic.DeepEqual(a.desired, before) {
		return false
	}
	a.names = append(a.names, c.name)
	a.invalid = a.invalid || c.invalid
	return true
}

// encode encodes the changes: as the rotator does, or in another way.
func (a *attempt) encode(random *rand.Rand) {
	from, to := encode(a.old), encode(a.desired)
	var err error
	switch random.IntN(6) {
	case 0, 1:
		if patch := a.rotatorPatch(); patch != nil {
			a.kind = types.JSONPatchType
			a.patch, err = json.Marshal(patch)
			break
		}
		fallthrough
	case 2:
		a.kind, a.patch = types.JSONPatchType, jsonPatch(from, to)
	case 3:
		a.kind = types.MergePatchType
		a.patch, err = jsonmergepatch.CreateThreeWayJSONMergePatch(from, to, from)
	case 4:
		a.kind = types.StrategicMergePatchType
		a.patch, err = strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Secret{})
	case 5:
		force := true
		a.kind, a.options.FieldManager, a.options.Force = types.ApplyPatchType, ciphertext.RotatorManager, &force
		a.patch = applyPatch(a.old, a.desired)
		a.desired = merged(a.old, a.desired)
	}
	if err != nil {
		panic(err)
	}
	// The API server does the same before admission.
	for name, text := range a.desired.StringData {
		entry(name, text)(a.desired)
	}
	a.desired.StringData = nil
}

// rotatorPatch returns the patch of the rotator, or nil if it does not write these changes.
func (a *attempt) rotatorPatch() *secretpatch.Patch {
	rewrapped := map[string][]byte{}
	for name, text := range a.desired.Data {
		if string(a.old.Data[name]) != string(text) {
			rewrapped[name] = text
		}
	}
	if len(rewrapped) == 0 || len(a.old.Labels) == 0 ||
		slices.ContainsFunc(a.names, func(n string) bool { return n != rewrap }) {
		return nil
	}
	patch := secretpatch.New(a.old)
	patch.SetEntries(rewrapped)
	patch.SetAnnotation(ciphertext.AnnotationRewrapped, patch.SetKeyVersion())
	return patch
}

func encode(s *corev1.Secret) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return text
}

// jsonPatch replaces each field that differs.
func jsonPatch(from, to []byte) []byte {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	operations := []operation{}
	var compare func(path string, from, to map[string]any, nested ...string)
	compare = func(path string, from, to map[string]any, nested ...string) {
		names := maps.Clone(from)
		maps.Copy(names, to)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			inner, _ := to[name].(map[string]any)
			if outer, ok := from[name].(map[string]any); ok && inner != nil && slices.Contains(nested, name) {
				compare(path+"/"+name, outer, inner, "labels", "annotations")
			} else if string(mustJSON(from[name])) != string(mustJSON(to[name])) {
				op := "add"
				if to[name] == nil {
					op = "remove"
				}
				pointer := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
				operations = append(operations, operation{op, pointer, to[name]})
			}
		}
	}
	var a, b map[string]any
	if json.Unmarshal(from, &a) != nil || json.Unmarshal(to, &b) != nil {
		panic("invalid JSON")
	}
	compare("", a, b, "metadata", "data")
	return mustJSON(operations)
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// applyPatch returns a server-side apply of what differs.
func applyPatch(old, desired *corev1.Secret) []byte {
	s := desired.DeepCopy()
	s.APIVersion, s.Kind = "v1", "Secret"
	s.ManagedFields, s.ResourceVersion, s.Generation = nil, "", 0
	s.Data = maps.Clone(s.Data)
	maps.DeleteFunc(s.Data, func(name string, text []byte) bool { return string(old.Data[name]) == string(text) })
	return encode(s)
}

// merged returns the result of an apply, which removes nothing that the rotator does not own.
func merged(old, desired *corev1.Secret) *corev1.Secret {
	s := old.DeepCopy()
	union := func(target *map[string]string, from map[string]string) {
		if *target == nil && len(from) > 0 {
			*target = map[string]string{}
		}
		maps.Copy(*target, from)
	}
	union(&s.Labels, desired.Labels)
	union(&s.Annotations, desired.Annotations)
	union(&s.StringData, desired.StringData)
	for name, text := range desired.Data {
		entry(name, string(text))(s)
	}
	for _, owner := range desired.OwnerReferences {
		same := func(o metav1.OwnerReference) bool { return o.UID == owner.UID }
		s.OwnerReferences = append(slices.DeleteFunc(s.OwnerReferences, same), owner)
	}
	for _, name := range desired.Finalizers {
		if !slices.Contains(s.Finalizers, name) {
			s.Finalizers = append(s.Finalizers, name)
		}
	}
	if desired.Immutable != nil {
		s.Immutable = desired.Immutable
	}
	if desired.GenerateName != "" {
		s.GenerateName = desired.GenerateName
	}
	s.Type = desired.Type
	return s
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

// randomText returns text in the format of ciphertext with a payload of n bytes.
func randomText(random *rand.Rand, version, n int) []byte {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(random.Uint32())
	}
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(payload))
}

// randomVersion returns a version with any number of digits.
func randomVersion(random *rand.Rand) int {
	highest := pick(random, []int{9, 99, 999, 9999, 99999, 999999})
	return 1 + random.IntN(highest)
}
