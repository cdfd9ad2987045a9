package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// podSecret returns the Secret that the kubelet passes for the volume; empty for none.
func (c *classCheck) podSecret() string {
	if c.volume == nil || c.volume.NodePublishSecretRef == nil {
		return ""
	}
	return c.volume.NodePublishSecretRef.Name
}

// problemsOf returns what is wrong with the entries of a Secret that the class names: missing ones, and those that are
// not ciphertext.
func (c *classCheck) problemsOf(secret *corev1.Secret) (problems, missing, plain []string) {
	entries := c.entries
	if entries == nil {
		entries = ciphertext.Entries(secret.Data)
	}
	for _, entry := range entries {
		text, found := secret.Data[entry]
		if !found {
			problems = append(problems, fmt.Sprintf("entry %q, which the class names, does not exist", entry))
			missing = append(missing, entry)
		} else if _, err := ciphertext.Version(text); err != nil {
			problems, plain = append(problems, fmt.Sprintf("entry %q %s", entry, err)), append(plain, entry)
		}
	}
	if len(secret.Data) == 0 {
		problems = append(problems, "it has no entries")
	}
	return problems, missing, plain
}

// candidate reports whether a Secret can replace the one that the class names: it is ciphertext of the key, and has the
// entries that the class names.
func (c *classCheck) candidate(secret *corev1.Secret) bool {
	problems, _, _ := c.problemsOf(secret)
	settings, err := ciphertext.SettingsOf(secret)
	return len(problems) == 0 && err == nil && settings.Key.Mount == c.Key.Mount && settings.Key.Name == c.Key.Name
}

// otherSecrets returns the Secrets that can replace the one that the class names: the one that the pod names, or else,
// if the user may list them, all that the key encrypts.
func (c *classCheck) otherSecrets(ctx context.Context) (names []string) {
	if name := c.podSecret(); name != "" && name != c.Secret {
		secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && c.candidate(secret) {
			return []string{name}
		}
		return nil
	}
	list, err := c.Kube.CoreV1().Secrets(c.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey + "=" + c.Key.Name, Limit: 100})
	if err != nil {
		return nil
	}
	for i := range list.Items {
		if s := &list.Items[i]; s.Name != c.Secret && c.candidate(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// encryptFixes returns the command that encrypts values which only a person knows, from standard input. It is one
// command for all entries: encrypt verifies the whole Secret, so a command for the first of two broken entries would
// fail.
func (c *classCheck) encryptFixes(entries []string) (commands []string) {
	switch {
	case len(entries) == 0 || c.isOrdinary():
		return nil
	case len(entries) == 1:
		return []string{c.encrypt(entries[0] + "=-")}
	}
	return []string{c.encryptWords("--from-stdin-json")}
}

const asksForValue = "the command reads the value from standard input, or with --from-stdin-json a JSON object with " +
	"a field for each entry; --from-file ENTRY=FILE reads files instead"

// secretMissing returns the finding for a Secret that does not exist.
func (c *classCheck) secretMissing(ctx context.Context) result.Finding {
	f := result.Brokenf("Secret %s does not exist in namespace %s", c.Secret, c.Namespace)
	others := c.otherSecrets(ctx)
	if len(others) == 1 && others[0] == c.podSecret() {
		f.Detail += "; Secret " + others[0] + ", which the pod's nodePublishSecretRef names, does, and has the entries"
		if fixes := c.parameterFixes(ctx, "secretName", c.Secret, others[0]); certain(fixes) {
			return f.WithFix(fixes[0].Fixes...)
		}
	}
	if len(c.entries) == 0 && len(others) == 0 {
		return f.WithAdvice("check secretName in the class; the class names no entries, so only its author knows which to " +
			"encrypt: " + c.program() + " encrypt --help")
	}
	for _, other := range others {
		for _, choice := range c.parameterFixes(ctx, "secretName", c.Secret, other) {
			if choice.When != "" {
				choice.When = ", and " + choice.When
			}
			f = f.WithChoice("Secret "+other+" is meant, which has the entries"+choice.When, choice.Fixes...)
		}
	}
	switch fixes := c.encryptFixes(c.entries); {
	case len(fixes) == 0:
		return f
	case len(f.Choices) == 0:
		return f.WithFix(fixes...).WithAdvice(asksForValue + "; check secretName in the class first")
	default:
		return f.WithChoice("Secret "+c.Secret+" has not been written yet", fixes...).WithAdvice(asksForValue)
	}
}

func (c *classCheck) checkSecret(ctx context.Context) result.Finding {
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, c.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return c.secretMissing(ctx)
	}
	if err != nil {
		return result.RequestFailed("get secrets -n "+c.Namespace, err)
	}
	c.secret = secret
	problems, missing, plain := c.problemsOf(secret)
	if len(problems) == 0 {
		return result.OKf("Secret %s/%s with entries %s", secret.Namespace, secret.Name,
			result.Clip(strings.Join(ciphertext.Entries(secret.Data), ", ")))
	}
	f := result.Brokenf("Secret %s/%s: %s", secret.Namespace, secret.Name, strings.Join(problems, "; "))
	if len(plain) > 0 {
		return c.plaintextFix(f, plain, missing)
	}
	others := c.otherSecrets(ctx)
	for _, other := range others {
		for _, choice := range c.parameterFixes(ctx, "secretName", c.Secret, other) {
			if choice.When != "" {
				choice.When = ", and " + choice.When
			}
			f = f.WithChoice("Secret "+other+" is meant, which has the entries"+choice.When, choice.Fixes...)
		}
	}
	fixes := c.encryptFixes(missing)
	switch {
	case len(fixes) == 0:
		return f
	case len(f.Choices) > 0:
		return f.WithChoice("the entries are to be added to Secret "+c.Secret, fixes...).WithAdvice(asksForValue)
	}
	return f.WithFix(fixes...).WithAdvice(asksForValue)
}

// plaintextFix adds the fix for entries that are not ciphertext. Where all entries are plaintext, the Secret is
// converted. A single one among ciphertext is encrypted from its own value. For others, as for encryptFixes, one
// command has to write all of them.
func (c *classCheck) plaintextFix(f result.Finding, plain, missing []string) result.Finding {
	const stored = "the value was stored as plaintext: backups of the cluster have it, so replace it soon"
	switch {
	case len(missing) == 0 && len(plain) == len(c.secret.Data):
		convert := c.encryptWords("--from-secret", c.Secret, "--replace")
		if c.isOrdinary() {
			// An author of classes can name any Secret.
			return f.WithChoice("nothing else reads Secret "+c.Secret+": whatever reads it directly, as variables or as a "+
				"volume, would read ciphertext", convert)
		}
		return f.WithFix(convert)
	case len(missing) == 0 && len(plain) == 1:
		path := `jsonpath={.data.` + strings.ReplaceAll(plain[0], ".", `\.`) + `}`
		return f.WithFix(c.kubectl("get", "secret", c.Secret, "-o", path) + " | base64 -d | " +
			c.encrypt(plain[0]+"=-")).WithAdvice(stored)
	}
	if c.isOrdinary() {
		return f.WithAdvice("it is not a ciphertext Secret: check secretName in the class")
	}
	return f.WithFix(c.encryptFixes(append(plain, missing...))...).WithAdvice(asksForValue + "; " + stored)
}

// isOrdinary reports whether the Secret was never meant to have ciphertext. Encrypt does not write to such a Secret.
func (c *classCheck) isOrdinary() bool {
	return c.secret != nil && c.secret.Type != ciphertext.Type && c.secret.Labels[ciphertext.LabelTransitKey] == ""
}

// checkSource checks how the provider gets the ciphertext.
func (c *classCheck) checkSource(ctx context.Context) result.Finding {
	ref := `nodePublishSecretRef: {name: ` + c.Secret + `}`
	if name := c.podSecret(); name != "" {
		if name == c.Secret {
			return result.OKf("the kubelet passes Secret %s (nodePublishSecretRef)", c.Secret)
		}
		return c.wrongReference(ctx, name)
	}
	if c.account == "" {
		return result.OKf("with %s in the pod's volume, under csi", ref)
	}
	review, err := c.Kube.AuthorizationV1().SubjectAccessReviews().
		Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + c.Namespace + ":" + c.account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Namespace,
				"system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: c.Namespace, Verb: "get",
				Resource: "secrets", Name: c.Secret},
		}}, metav1.CreateOptions{})
	if err != nil {
		f := result.RequestFailed("create subjectaccessreviews.authorization.k8s.io", err)
		f.Detail = "whether service account " + c.account + " may get Secret " + c.Secret + ": " + f.Detail
		return f
	}
	switch {
	case review.Status.Allowed:
		return result.OKf("service account %s may get Secret %s", c.account, c.Secret)
	case c.volume == nil:
		return result.OKf("only with %s in the pod's volume, under csi: service account %s may not get it", ref, c.account)
	}
	f := result.Brokenf("the pod's volume has no nodePublishSecretRef, and service account %s may not get Secret %s",
		c.account, c.Secret)
	if fix := c.volumePatch(ctx, nil, map[string]string{"name": c.Secret}, "nodePublishSecretRef"); fix != nil {
		return f.WithFix(fix...)
	}
	return f.WithAdvice("set " + ref + " in the volume of a new pod; or the owner of namespace " + c.Namespace +
		" grants the service account a Role with get on that Secret")
}

// wrongReference returns the finding for a pod whose volume names another Secret than the class. The Secret of the
// class
// exists, or this check would not run: the fix depends on whether the other one does.
func (c *classCheck) wrongReference(ctx context.Context, name string) result.Finding {
	f := result.Brokenf("the pod's nodePublishSecretRef names Secret %s, but the class names %s", name, c.Secret)
	other, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	inPod := c.volumePatch(ctx, name, c.Secret, "nodePublishSecretRef", "name")
	advice := "set nodePublishSecretRef: {name: " + c.Secret + "} in the volume of a new pod"
	why := ""
	switch {
	case apierrors.IsNotFound(err):
		why = "Secret " + name + " does not exist"
	case err == nil && !c.candidate(other):
		why = "Secret " + name + " does not have what the class needs (" + c.whyNoCandidate(other) + ")"
	}
	if why != "" {
		f.Detail += "; " + why
	}
	if why != "" && c.secret != nil {
		if inPod == nil {
			return f.WithAdvice(advice)
		}
		return f.WithFix(inPod...)
	}
	// Both can be right, or the other one could not be read.
	describe := func(s *corev1.Secret, where string) string {
		if s == nil || len(s.Data) == 0 {
			return where
		}
		return fmt.Sprintf("%s (entries %s)", where, result.Clip(strings.Join(ciphertext.Entries(s.Data), ", ")))
	}
	if inPod != nil {
		f = f.WithChoice("the pods need "+describe(c.secret, "Secret "+c.Secret+", as the class says"), inPod...)
	} else {
		f = f.WithAdvice("if the pods need Secret " + c.Secret + ", " + advice)
	}
	for _, choice := range c.parameterFixes(ctx, "secretName", c.Secret, name) {
		when := "the pods need " + describe(other, "Secret "+name+", as the pod says")
		if choice.When != "" {
			when += ", and " + choice.When
		}
		f = f.WithChoice(when, choice.Fixes...)
	}
	return f
}

// whyNoCandidate returns why a Secret cannot replace the one that the class names.
func (c *classCheck) whyNoCandidate(secret *corev1.Secret) string {
	if problems, _, _ := c.problemsOf(secret); len(problems) > 0 {
		return problems[0]
	}
	settings, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return result.OneLine(err)
	}
	return "its key is " + settings.Key.String()
}

// wrongLabels returns the finding for a Secret whose label and annotations differ from the class. Vault shows
// which
// of them are right, if the user may rewrap.
func (c *classCheck) wrongLabels(ctx context.Context, problems []string, set ciphertext.Settings) result.Finding {
	f := result.Brokenf("%s", strings.Join(problems, "; "))
	inClass := c.settingsInClass(set)
	inSecret := c.settingsInSecret(set, ciphertext.Settings{Key: c.Key, Scope: c.Scope})
	asClass, asSecret := c.decryptsWith(ctx, ciphertext.Settings{Key: c.Key, Scope: c.Scope}), c.decryptsWith(ctx, set)
	switch {
	case asClass == OK && asSecret != OK:
		f.Detail += "; the entries decrypt with what the class says"
		return f.WithFix(inSecret...)
	case asSecret == OK && asClass != OK:
		f.Detail += "; the entries decrypt with what the Secret says"
		return f.WithFix(inClass...)
	}
	return f.WithChoice("it was encrypted with what the Secret says", inClass...).
		WithChoice("it was encrypted with what the class says", inSecret...).
		WithAdvice("with a Vault token that may rewrap with the keys, doctor finds out which is right")
}

// settingsInClass returns the command that gives the class the settings of the Secret.
func (c *classCheck) settingsInClass(set ciphertext.Settings) (fix []string) {
	for _, p := range []struct{ name, class, secret string }{
		{"transitKey", c.Key.Name, set.Key.Name}, {"transitMount", c.Key.Mount, set.Key.Mount},
		{"scope", string(c.Scope), string(set.Scope)},
	} {
		if p.class != p.secret {
			fix = append(fix, c.replaceParameter(p.name, p.class, p.secret))
		}
	}
	return fix
}

// settingsInSecret returns the command that gives the Secret other settings.
func (c *classCheck) settingsInSecret(set, desired ciphertext.Settings) []string {
	escape := func(name string) string { return strings.ReplaceAll(name, "/", "~1") }
	var patch []operation
	add := func(in map[string]string, path, name, current, value string) {
		if current == value {
			return
		}
		path += "/" + escape(name)
		if _, found := in[name]; found {
			patch = append(patch, operation{"test", path, in[name]}, operation{"replace", path, value})
			return
		}
		if in == nil && !slices.ContainsFunc(patch, func(o operation) bool { return o.Path == "/metadata/annotations" }) {
			patch = append(patch, operation{"add", "/metadata/annotations", map[string]string{}})
		}
		patch = append(patch, operation{"add", path, value})
	}
	add(c.secret.Labels, "/metadata/labels", ciphertext.LabelTransitKey, set.Key.Name, desired.Key.Name)
	add(c.secret.Annotations, "/metadata/annotations", ciphertext.AnnotationTransitMount, set.Key.Mount, desired.Key.Mount)
	add(c.secret.Annotations, "/metadata/annotations", ciphertext.AnnotationScope, string(set.Scope),
		string(desired.Scope))
	return []string{c.kubectl("patch", "secret", c.Secret, "--type=json", "-p", jsonPatch(patch))}
}
