package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// request is a Mount whose every part has been validated.
type request struct {
	pod            pod
	class          string // name of the SecretProviderClass
	role           string
	secret         string // name of the ciphertext Secret
	key            transit.Key
	scope          ciphertext.Scope
	objects        []object // nil: every entry, as a file of its name
	authMount      string
	audience       string
	vaultNamespace string
	vaultAddress   string
	target         string // folder the driver will write to

	attributes map[string]string // all there are but the tokens
	whole      digest            // of the request as it came; see republished

	tokens tokens
	handed map[string][]byte // entries of the Secret that the kubelet read; nil without
}

// pod is who the mount is for, as the kubelet says.
type pod struct {
	namespace, name, uid, serviceAccount string
}

// Keys of attributes, and in part of secrets, that the kubelet and the driver set.
const (
	kubeletPrefix     = "csi.storage.k8s.io/"
	keyPodNamespace   = kubeletPrefix + "pod.namespace"
	keyPodName        = kubeletPrefix + "pod.name"
	keyPodUID         = kubeletPrefix + "pod.uid"
	keyServiceAccount = kubeletPrefix + "serviceAccount.name"
	keyTokens         = kubeletPrefix + "serviceAccount.tokens"
	keyClass          = "secretProviderClass"
	keyProvider       = "providerName"
)

// parameter is one that a SecretProviderClass may have.
type parameter struct {
	name     string
	required bool
	// set returns what is wrong, each as it goes on from the name: ": is empty".
	// The Provider is nil where there is none, only a manifest.
	set func(r *request, p *Provider, value string) []string
}

// known are all parameters there are. docs/reference/parameters.md has them too.
var known = []parameter{
	{"roleName", true, func(r *request, _ *Provider, v string) []string {
		r.role = v
		return problem(ciphertext.CheckName(v))
	}},
	{"secretName", true, func(r *request, _ *Provider, v string) []string {
		r.secret = v
		if len(validation.IsDNS1123Subdomain(v)) > 0 {
			return []string{": " + failure.Quote(v) + " is not the name of a Secret"}
		}
		return nil
	}},
	{"transitKey", true, func(r *request, _ *Provider, v string) []string {
		r.key.Name = v
		return problem(ciphertext.CheckName(v))
	}},
	{"transitMount", false, func(r *request, _ *Provider, v string) []string {
		r.key.Mount = v
		return problem(ciphertext.CheckPath(v))
	}},
	{"scope", false, func(r *request, _ *Provider, v string) (problems []string) {
		var err error
		r.scope, err = ciphertext.ParseScope(v)
		return problem(err)
	}},
	{"objects", false, func(r *request, _ *Provider, v string) (problems []string) {
		r.objects, problems = parseObjects(v, r.target)
		return problems
	}},
	{"vaultAuthMountPath", false, func(r *request, p *Provider, v string) []string {
		r.authMount = strings.TrimSuffix(v, "/") // Vault's tools show it with one
		if err := ciphertext.CheckPath(r.authMount); err != nil || p == nil {
			return problem(err)
		}
		return allowed(v, r.authMount, p.config.AuthMount, p.config.AllowedAuthMounts, "an auth mount", "vault-allowed-auth-mounts")
	}},
	{"audience", false, func(r *request, _ *Provider, v string) []string {
		r.audience = v
		return nil
	}},
	{"vaultNamespace", false, func(r *request, p *Provider, v string) []string {
		r.vaultNamespace = strings.TrimSuffix(v, "/")
		if err := ciphertext.CheckPath(r.vaultNamespace); err != nil || p == nil {
			return problem(err)
		}
		return allowed(v, r.vaultNamespace, p.config.VaultNamespace, p.config.AllowedNamespaces, "a Vault namespace", "vault-allowed-namespaces")
	}},
	{"vaultAddress", false, func(r *request, p *Provider, v string) []string {
		r.vaultAddress = transit.NormalAddress(v)
		if p == nil {
			if err := transit.CheckAddress(r.vaultAddress); err != nil {
				return problem(fmt.Errorf("vault address %w", err))
			}
			return nil
		}
		if p.vaults[r.vaultAddress] == nil {
			return notAllowed(v, "an address", "vault-allowed-addresses")
		}
		return nil
	}},
}

// allowed refuses a value of a class that is neither what the operator configured
// nor in the operator's list. Whatever a class may name here gets the pod's token.
func allowed(written, value, configured string, list []string, what, flag string) []string {
	if value == configured || slices.Contains(list, value) {
		return nil
	}
	return notAllowed(written, what, flag)
}

func notAllowed(value, what, flag string) []string {
	return []string{fmt.Sprintf(": %s is not %s that the provider allows (its flag --%s)", failure.Quote(value), what, flag)}
}

// parse reads and validates a Mount. The request is never nil: it names in logs
// what could be read. The failure reports all problems at once, each with its path.
func (p *Provider) parse(in *v1alpha1.MountRequest) (*request, *failure.Error) {
	r, failed := p.open(in)
	if failed == nil {
		failed = p.validate(r, in)
	}
	return r, failed
}

// open reads whose the mount is. That takes no more than the text of the attributes:
// what more there is of it is built once there is room, by [Provider.validate].
func (p *Provider) open(in *v1alpha1.MountRequest) (*request, *failure.Error) {
	r := &request{
		key: transit.Key{Mount: ciphertext.DefaultTransitMount}, scope: ciphertext.Strict,
		authMount: p.config.AuthMount, audience: p.config.Audience,
		vaultNamespace: p.config.VaultNamespace, vaultAddress: p.config.Vault.Address,
		target: in.GetTargetPath(),
	}
	if err := errors.Join(checkMap("attributes", in.GetAttributes(), maxAttributes, maxParameters),
		checkMap("secrets", in.GetSecrets(), maxRequest, maxEntries), checkLength("the target path", in.GetTargetPath(), maxPath)); err != nil {
		r.target = ""
		return r, tooLarge(err)
	}
	attributes, problems := stringMap("attributes", in.GetAttributes())
	if len(problems) > 0 {
		return r, unreadable(problems)
	}
	r.attributes = attributes
	r.pod = pod{attributes[keyPodNamespace], attributes[keyPodName], attributes[keyPodUID], attributes[keyServiceAccount]}
	r.class, r.secret = attributes[keyClass], attributes["secretName"]
	return r, nil
}

// validate reads the rest of a request.
func (p *Provider) validate(r *request, in *v1alpha1.MountRequest) *failure.Error {
	attributes := r.attributes
	secrets, problems := stringMap("secrets", in.GetSecrets())
	if len(problems) > 0 {
		return unreadable(problems)
	}
	if len(validation.IsDNS1123Label(r.pod.namespace)) > 0 {
		problems = append(problems, keyPodNamespace+": is not the name of a namespace; the CSIDriver needs podInfoOnMount: true")
	}
	// These become headers of the requests to Vault, where an auditor reads them.
	for _, named := range []struct {
		key, value, what string
		valid            func(string) bool
	}{
		{keyPodName, r.pod.name, "the name of a pod", isSubdomain},
		{keyPodUID, r.pod.uid, "a uid", isUID},
		{keyServiceAccount, r.pod.serviceAccount, "the name of a service account", isSubdomain},
		{keyClass, r.class, "the name of a SecretProviderClass", isSubdomain},
	} {
		if named.value != "" && !named.valid(named.value) {
			problems = append(problems, fmt.Sprintf("%s: %s is not %s", named.key, failure.Quote(named.value), named.what))
		}
	}
	problems = append(problems, r.readTokens(attributes, secrets)...)
	r.readHanded(secrets)
	delete(attributes, keyTokens) // which have been read

	problems = append(problems, r.setAll(p, attributes)...)
	if len(problems) > 0 {
		return failure.InvalidParameters.New(r.describe("reading the parameters of"), failure.List(problems),
			"the class's spec.parameters, and the pod's volumeAttributes, which override them")
	}
	return nil
}

const readingRequest = "reading the driver's request"

func unreadable(problems []string) *failure.Error {
	return failure.InvalidRequest.New(readingRequest, failure.List(problems),
		"that the driver is one that knows the provider protocol v1alpha1; its log says what it sent")
}

func tooLarge(err error) *failure.Error {
	return failure.RequestTooLarge.New(readingRequest, strings.ReplaceAll(err.Error(), "\n", "; "),
		"the size of the class's parameters, of the pod's volumeAttributes and of the Secret in nodePublishSecretRef")
}

// checkMap reports a JSON object that has more bytes or members than it may.
func checkMap(name, text string, maxBytes, maxMembers int) error {
	if err := checkLength(name, text, maxBytes); err != nil {
		return err
	}
	// The object itself counts too.
	if values, _ := jsonSize([]byte(text)); values > maxMembers+1 {
		return fmt.Errorf("%s have more than the limit of %d members", name, maxMembers)
	}
	return nil
}

func checkLength(name, text string, maxBytes int) error {
	if err := tooLong(text, maxBytes); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// setAll takes the parameters out of the attributes, and returns all that is wrong
// with them.
func (r *request) setAll(p *Provider, attributes map[string]string) (problems []string) {
	for _, param := range known {
		// An empty value is what a template leaves of a setting nobody made.
		value := attributes[param.name]
		if strings.TrimSpace(value) == "" {
			if param.required {
				problems = append(problems, param.name+": is required")
			}
			continue
		}
		if err := tooLong(value, maxParameter); err != nil && param.name != "objects" {
			problems = append(problems, param.name+": "+err.Error())
			continue
		}
		for _, problem := range param.set(r, p, value) {
			problems = append(problems, param.name+problem)
		}
	}
	return append(problems, unknown(attributes)...)
}

// describe names the mount in a message: "mounting the volume of SecretProviderClass demo/matrix".
func (r *request) describe(prefix string) string {
	if r.class == "" {
		return prefix + " the mount"
	}
	return fmt.Sprintf("%s SecretProviderClass %s/%s", prefix, failure.Clip(r.pod.namespace, 63), failure.Clip(r.class, 253))
}

// readTokens takes the tokens from where this kubelet and this driver put them:
// since Kubernetes 1.35 it may be secrets.
func (r *request) readTokens(attributes, secrets map[string]string) (problems []string) {
	text := attributes[keyTokens]
	if text == "" {
		text = secrets[keyTokens]
	}
	if text == "" {
		return nil // whoever needs one says which
	}
	var err error
	if r.tokens, err = parseTokens(text); err != nil {
		return []string{keyTokens + ": " + err.Error()}
	}
	return nil
}

// readHanded takes the entries of the Secret in nodePublishSecretRef. No entry
// of a Secret has a slash in its name; what has one is the kubelet's own.
func (r *request) readHanded(secrets map[string]string) {
	for name, value := range secrets {
		if strings.HasPrefix(name, kubeletPrefix) {
			continue
		}
		if r.handed == nil {
			r.handed = map[string][]byte{}
		}
		r.handed[name] = []byte(value)
	}
}

// unknown reports parameters that do not exist, with the nearest one that does.
func unknown(attributes map[string]string) (found problems) {
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if found.full() {
			return found
		}
		if name == keyClass || name == keyProvider || strings.HasPrefix(name, kubeletPrefix) ||
			slices.ContainsFunc(known, func(p parameter) bool { return p.name == name }) {
			continue
		}
		switch nearest := nearest(name); {
		case strings.HasPrefix(name, "vaultSkipTLS"), strings.HasPrefix(name, "vaultCA"), strings.HasPrefix(name, "vaultTLS"):
			found.add(failure.Quote(name) + ": is not a parameter: TLS to Vault is set by the operator, with the provider's flags")
		default:
			found.add(fmt.Sprintf("%s: is not a parameter; did you mean %q?", failure.Quote(name), nearest))
		}
	}
	return found
}

func nearest(name string) string {
	name = strings.ToLower(failure.Clip(name, 64)) // the distance takes time by length
	return slices.MinFunc(known, func(a, b parameter) int {
		return levenshtein.ComputeDistance(name, strings.ToLower(a.name)) - levenshtein.ComputeDistance(name, strings.ToLower(b.name))
	}).name
}

// stringMap reads a JSON object of strings; null is an empty one. It never
// repeats a value.
func stringMap(path, text string) (map[string]string, []string) {
	if text == "" {
		return nil, nil
	}
	var all map[string]*string
	err := json.Unmarshal([]byte(text), &all)
	values := make(map[string]string, len(all))
	for name, s := range all {
		if s != nil {
			values[name] = *s
		}
	}
	if err == nil && len(values) == len(all) {
		return values, nil
	}
	return values, notStrings(path, text)
}

// notStrings says what keeps a text from being a JSON object of strings.
func notStrings(path, text string) (found problems) {
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return []string{path + ": is not a JSON object, as the driver sends it"}
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		var s *string
		if json.Unmarshal(raw[name], &s) != nil || s == nil {
			if !found.add(fmt.Sprintf("%s[%s]: is not a string", path, failure.Quote(name))) {
				break
			}
		}
	}
	return found
}

// problem is what a parameter's set returns for an error.
func problem(err error) []string {
	if err == nil {
		return nil
	}
	return []string{": " + failure.Clip(err.Error(), 300)}
}
