package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	spcv1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"

	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/vaultsetup"
)

// subjectSide is the pod and the classes that were asked about. It is read early,
// since what the cluster has to offer depends on what they want.
type subjectSide struct {
	loaded  bool
	pod     *corev1.Pod
	podErr  error
	classes []*class
}

// class is a SecretProviderClass with the volume that names it.
type class struct {
	*walk
	name    string
	of      string
	account string
	volume  *corev1.CSIVolumeSource // nil without a pod

	object *spcv1.SecretProviderClass
	err    error // of reading it, or of its parameters
	bad    bool  // the error is of its parameters
	provider.Class

	role   map[string]any // as Vault has it; nil if it could not be read
	login  *login
	secret *corev1.Secret
}

// load reads pod and classes, once.
func (w *walk) load(ctx context.Context) *subjectSide {
	s := &w.subject
	if s.loaded || w.Kube == nil {
		return s
	}
	s.loaded = true
	if w.Pod == "" {
		if w.Class != "" {
			w.loadClass(ctx, w.Class, w.Account, nil)
		}
		return s
	}
	if s.pod, s.podErr = w.Kube.CoreV1().Pods(w.Namespace).Get(ctx, w.Pod, metav1.GetOptions{}); s.podErr != nil {
		s.pod = nil
		return s
	}
	for _, v := range s.pod.Spec.Volumes {
		if v.CSI == nil || v.CSI.Driver != driverName || v.CSI.VolumeAttributes["secretProviderClass"] == "" {
			continue
		}
		w.loadClass(ctx, v.CSI.VolumeAttributes["secretProviderClass"], s.pod.Spec.ServiceAccountName, v.CSI)
	}
	return s
}

func (w *walk) loadClass(ctx context.Context, name, account string, volume *corev1.CSIVolumeSource) {
	c := &class{walk: w, name: name, of: "class " + w.Namespace + "/" + name, account: account, volume: volume}
	if slices.ContainsFunc(w.subject.classes, func(other *class) bool { return other.of == c.of }) {
		c.of += fmt.Sprintf(" (volume %d)", len(w.subject.classes)+1)
	}
	raw, err := w.raw(ctx, driverAPI+"/namespaces/"+w.Namespace+"/secretproviderclasses/"+name)
	if err == nil {
		err = json.Unmarshal(raw, &c.object)
	}
	if err != nil {
		c.err, c.object = err, nil
		w.subject.classes = append(w.subject.classes, c)
		return
	}
	if volume != nil && c.object.Spec.Provider != "secretmanager" {
		return // somebody else's volume
	}
	parameters := maps.Clone(c.object.Spec.Parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	if volume != nil {
		maps.Copy(parameters, volume.VolumeAttributes) // which override them
	}
	config := w.provider.settings
	if address := parameters["vaultAddress"]; !w.provider.seen && address != "" {
		// What the provider allows is not known.
		config.AllowedAddresses = append(slices.Clone(config.AllowedAddresses), address)
	}
	var problems []string
	if c.Class, problems = provider.ParseClass(&config, parameters); len(problems) > 0 {
		c.err, c.bad = errors.New(strings.Join(problems, "\n")), true
	}
	slices.Sort(c.Entries)
	c.Entries = slices.Compact(c.Entries) // a file each, of one entry perhaps
	w.subject.classes = append(w.subject.classes, c)
}

// audiences are those of the tokens that have to be there, and those that would be
// of use.
func (w *walk) audiences(ctx context.Context) (wanted, others []string) {
	add := func(list []string, audience string) []string {
		if slices.Contains(list, audience) {
			return list
		}
		return append(list, audience)
	}
	asPod := false
	for _, c := range w.load(ctx).classes {
		if c.err == nil {
			wanted = add(wanted, c.Audience)
			asPod = asPod || c.volume != nil && c.volume.NodePublishSecretRef == nil
		}
	}
	if len(wanted) == 0 {
		wanted = add(wanted, w.provider.settings.Audience)
	}
	if asPod {
		wanted = add(wanted, "")
	} else if w.Pod == "" && !slices.Contains(wanted, "") {
		others = []string{""}
	}
	return wanted, others
}

// classAddress is where a class has Vault, if it says.
func (w *walk) classAddress(ctx context.Context) string {
	for _, c := range w.load(ctx).classes {
		if c.err == nil && c.VaultAddress != "" {
			return c.VaultAddress
		}
	}
	return ""
}

// subjects looks at the pod and at each class.
func (w *walk) subjects(ctx context.Context) {
	pod := "pod " + w.Namespace + "/" + w.Pod
	if w.Pod != "" {
		w.look(ctx, pod, "pod", []string{"cluster"}, w.checkPod)
	} else if w.Kube == nil || w.broken["/cluster"] != "" {
		w.look(ctx, "class "+w.Namespace+"/"+w.Class, "class", []string{"cluster"}, nil)
		return
	} else {
		ctx, cancel := context.WithTimeout(ctx, w.Patience)
		w.load(ctx)
		cancel()
	}
	for _, c := range w.subject.classes {
		c.walkClass(ctx)
	}
	if w.Pod != "" && w.subject.pod != nil {
		w.lookMount(ctx, pod)
	}
}

// walkClass looks at all that a class rests on.
func (c *class) walkClass(ctx context.Context) {
	look := func(name string, check func(context.Context) finding, needs ...string) {
		c.look(ctx, c.of, name, needs, check)
	}
	look("class", c.checkClass, "cluster", "crds")
	look("service-account", c.checkAccount, "cluster")
	look("auth-mount", func(ctx context.Context) finding {
		return c.checkAuthMount(ctx, c.VaultNamespace, c.AuthMount)
	}, "class", "vault", "vault-seal")
	look("role", c.checkRole, "class", "service-account", "auth-mount")
	look("audience", c.checkAudience, "role")
	look("login", c.checkLogin, "role", "audience")
	look("policy", c.checkPolicy, "login")
	look("key", c.checkKey, "class", "vault", "vault-seal")
	look("secret", c.checkSecret, "class")
	look("label", c.checkLabel, "secret")
	look("opens", c.checkOpens, "secret", "key")
	look("source", c.checkSource, "class", "service-account", "secret")
}

func (c *class) kubectl(words ...string) string {
	return command(append([]string{"kubectl", "-n", c.Namespace}, words...)...)
}

// setParameter is the command that sets a parameter of the class.
func (c *class) setParameter(name, value string) string {
	patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"parameters": map[string]string{name: value}}}) // of texts only
	return c.kubectl("patch", "secretproviderclass", c.name, "--type=merge", "-p", string(patch))
}

func (c *class) checkClass(context.Context) finding {
	switch {
	case c.bad:
		return brokenf("its parameters: %s", strings.ReplaceAll(c.err.Error(), "\n", "; ")).
			mending(c.kubectl("edit", "secretproviderclass", c.name)).advising("docs/reference/parameters.md has the parameters; the pod's volumeAttributes override those of the class")
	case apierrors.IsNotFound(c.err):
		return brokenf("there is no SecretProviderClass %s in namespace %s", c.name, c.Namespace).mending(c.kubectl("get", "secretproviderclasses")).
			advising("it has to be in the pod's namespace")
	case c.err != nil:
		f := unseen("get secretproviderclasses.secrets-store.csi.x-k8s.io -n "+c.Namespace, c.err)
		f.bars = true
		return f
	case c.object.Spec.Provider != "secretmanager":
		return brokenf("its spec.provider is %q: the driver would not ask the provider secretmanager", c.object.Spec.Provider).
			mending(c.kubectl("edit", "secretproviderclass", c.name))
	}
	f := okf("role %s, key %s, Secret %s, scope %s", c.Role, c.Key, c.Secret, c.Scope)
	if used := strings.TrimRight(c.vault.config.Address, "/"); c.VaultAddress != "" && used != "" && c.VaultAddress != used {
		f = f.warning(fmt.Sprintf("pods use the Vault at %s, and what follows is about the one at %s", c.VaultAddress, used))
	}
	return f
}

func (c *class) checkAccount(ctx context.Context) finding {
	if c.account == "" {
		return unknownf("name the service account of the pods with --service-account")
	}
	_, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, c.account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return brokenf("there is no service account %s in namespace %s", c.account, c.Namespace).mending(c.kubectl("create", "serviceaccount", c.account))
	}
	if err != nil {
		return unseen("get serviceaccounts -n "+c.Namespace, err)
	}
	return okf("%s/%s", c.Namespace, c.account)
}

// checkSource looks at the way on which the ciphertext gets to the provider.
func (c *class) checkSource(ctx context.Context) finding {
	ref := `nodePublishSecretRef: {name: ` + c.Secret + `}`
	if c.volume != nil && c.volume.NodePublishSecretRef != nil {
		if name := c.volume.NodePublishSecretRef.Name; name != c.Secret {
			return brokenf("the pod's nodePublishSecretRef names Secret %s, and the class %s", name, c.Secret).
				mending(c.setParameter("secretName", name)).advising("or set " + ref + " in the pod's volume, which takes a new pod")
		}
		return okf("the kubelet hands over Secret %s (nodePublishSecretRef)", c.Secret)
	}
	if c.account == "" {
		return okf("with %s in the pod's volume, under csi", ref)
	}
	review, err := c.Kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + c.Namespace + ":" + c.account,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: c.Namespace, Verb: "get", Resource: "secrets", Name: c.Secret},
	}}, metav1.CreateOptions{})
	if err != nil {
		f := unseen("create subjectaccessreviews.authorization.k8s.io", err)
		f.detail = "whether service account " + c.account + " may get Secret " + c.Secret + ": " + f.detail
		return f
	}
	switch {
	case review.Status.Allowed:
		return okf("service account %s may get Secret %s", c.account, c.Secret)
	case c.volume == nil:
		return okf("only with %s in the pod's volume, under csi: service account %s may not get it", ref, c.account)
	}
	reader := c.Secret + "-reader"
	return brokenf("the pod's volume has no nodePublishSecretRef, and service account %s may not get Secret %s", c.account, c.Secret).mending(
		c.kubectl("create", "role", reader, "--verb=get", "--resource=secrets", "--resource-name="+c.Secret),
		c.kubectl("create", "rolebinding", reader, "--role="+reader, "--serviceaccount="+c.Namespace+":"+c.account)).
		advising("or set " + ref + " in the pod's volume, which takes a new pod")
}

// defaultRole is the role that vault-setup makes for the pods.
func (c *class) defaultRole() string {
	return vaultsetup.ClassRoleName(vaultsetup.Account{Namespace: c.Namespace, Name: c.account}, c.Key)
}

// setup is the command that makes key, policy and role.
func (c *class) setup(key, role string) string {
	words := []string{"vault-setup", "--transit-key", key}
	standard := "transit"
	if vaultsetup.IsNamespacesMount(c.Key.Mount) {
		words, standard = []string{"vault-setup", "--per-namespace"}, vaultsetup.NamespacesMount(c.AuthMount)
	}
	if c.Key.Mount != standard {
		words = append(words, "--transit-mount", c.Key.Mount)
	}
	words = append(words, "-n", c.Namespace, "--service-account", cmp.Or(c.account, "SERVICEACCOUNT"))
	if role != c.defaultRole() {
		words = append(words, "--role", role)
	}
	if c.AuthMount != "kubernetes" {
		words = append(words, "--auth-mount", c.AuthMount)
	}
	if c.Audience != "vault" {
		words = append(words, "--audience", c.Audience)
	}
	return c.vaultEnv() + c.program() + " " + command(append(words, "--apply")...)
}

// vaultEnv is what a command for Vault has to be preceded by.
func (c *class) vaultEnv() string {
	if c.VaultNamespace != c.Options.VaultNamespace {
		return "VAULT_NAMESPACE=" + shellWord(c.VaultNamespace) + " "
	}
	return ""
}

func (w *walk) program() string { return cmp.Or(w.Program, "secretmanager") }

var errNoAccount = errors.New("name the service account of the pods with --service-account")
