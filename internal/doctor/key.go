package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// otherKeysMost bounds how many other keys are tried: each is a line in Vault's audit log.
const otherKeysMost = 5

// otherKeys are keys of the same mount that Secrets of the cluster name, as far as
// that can be seen. Of the Secrets only the metadata is asked for.
func (c *class) otherKeys(ctx context.Context) []string {
	raw, err := c.Kube.Discovery().RESTClient().Get().AbsPath("/api/v1/secrets").
		Param("labelSelector", ciphertext.LabelTransitKey+","+ciphertext.LabelTransitKey+"!="+c.Key.Name).
		Param("limit", "500").
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	var list metav1.PartialObjectMetadataList
	if err != nil || json.Unmarshal(raw, &list) != nil {
		return nil
	}
	var names []string
	for _, s := range list.Items {
		mount, there := s.Annotations[ciphertext.AnnotationTransitMount]
		if !there {
			mount = ciphertext.DefaultTransitMount
		}
		if name := s.Labels[ciphertext.LabelTransitKey]; mount == c.Key.Mount && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names[:min(len(names), otherKeysMost)]
}

func (c *class) checkKey(ctx context.Context) finding {
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	missing := func() finding {
		return brokenf("there is no %s", c.Key).
			withAdvice("check transitKey and transitMount in the class first; what was encrypted with a key that was " +
				"deleted cannot be decrypted any more; " + c.decides())
	}
	session, err := c.session(c.VaultNamespace)
	if err == nil {
		var info transit.KeyInfo
		info, err = session.Key(ctx, c.Key)
		switch {
		case err == nil && !strings.HasPrefix(info.Type, "aes") && !strings.HasPrefix(info.Type, "chacha"):
			return brokenf("%s is of type %s: it takes aes256-gcm96", c.Key, info.Type).withAdvice(anotherKey)
		case err == nil:
			return c.judgeDerived(info.Derived, fmt.Sprintf("%s, newest version %d", c.Key, info.Latest))
		case errors.Is(err, transit.ErrNotFound):
			return missing()
		}
	}
	why := "there is no Vault token to read " + c.Key.String() + " with (vault login)"
	if errors.Is(err, transit.ErrDenied) || errors.Is(err, transit.ErrInvalidToken) {
		why = "your Vault token may not read " + c.Key.String()
	} else if !errors.Is(err, errNoToken) {
		why = vaultWords(err)
	}
	// The account that may decrypt is told enough by the way.
	if l := c.login; l != nil && l.session != nil {
		may, words, err := l.mayDecrypt(ctx, c.Key)
		switch {
		case err != nil || !may:
		case strings.Contains(words, "key not found"), strings.Contains(words, "no handler"):
			return missing()
		case strings.Contains(words, "missing 'context'"):
			return c.judgeDerived(true, c.Key.String())
		case strings.Contains(words, "invalid ciphertext length"):
			return c.judgeDerived(false, c.Key.String())
		}
	}
	return unknownf("%s", why)
}

const anotherKey = "that cannot be changed on a key: its owner decides which other key the class may use; " +
	"then set transitKey in the class and encrypt the values again (secretmanager encrypt)"

// judgeDerived compares the key with the scope.
func (c *class) judgeDerived(derived bool, detail string) finding {
	switch {
	case !derived && c.Scope != ciphertext.None:
		return brokenf("%s is not derived, so nothing binds ciphertext to its place, and scope %s does not work", c.Key,
			c.Scope).
			withAdvice(anotherKey + ". Or, for ciphertext made elsewhere, scope: none in the class")
	case derived && c.Scope == ciphertext.None:
		return brokenf("%s is derived, and scope none does not work with that", c.Key).
			withFix(c.setParameter("scope", string(ciphertext.Strict))).
			withAdvice("or the scope that annotation " + ciphertext.AnnotationScope + " of the Secret has")
	case derived:
		return okf("%s, derived", detail)
	}
	return okf("%s, not derived, for scope none", detail)
}

// encrypt is the command that makes the Secret's entries.
func (c *class) encrypt(entries ...string) string {
	words := []string{"encrypt", c.Secret, "-n", c.Namespace, "--transit-key", c.Key.Name}
	if c.Key.Mount != ciphertext.DefaultTransitMount {
		words = append(words, "--transit-mount", c.Key.Mount)
	}
	if c.Scope != ciphertext.Strict {
		words = append(words, "--scope", string(c.Scope))
	}
	if len(entries) == 0 {
		entries = []string{"ENTRY"}
	}
	for _, entry := range entries {
		words = append(words, "--from-file", entry+"=FILE")
	}
	return c.vaultEnv() + c.program() + " " + command(words...)
}

func (c *class) checkSecret(ctx context.Context) finding {
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, c.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return brokenf("there is no Secret %s in namespace %s", c.Secret, c.Namespace).withFix(c.encrypt(c.entries...)).
			withAdvice("FILE being what the entry is to hold; check secretName in the class first")
	}
	if err != nil {
		return unseen("get secrets -n "+c.Namespace, err)
	}
	c.secret = secret
	entries := c.entries
	if entries == nil {
		entries = ciphertext.Entries(secret.Data)
	}
	var wrong, again []string
	for _, entry := range entries {
		text, there := secret.Data[entry]
		if !there {
			wrong, again = append(wrong, fmt.Sprintf("there is no entry %q, which the class names", entry)), append(again, entry)
		} else if _, err := ciphertext.Version(text); err != nil {
			wrong, again = append(wrong, fmt.Sprintf("entry %q %s", entry, err)), append(again, entry)
		}
	}
	if len(secret.Data) == 0 {
		wrong = append(wrong, "it has no entries")
	}
	if len(wrong) > 0 {
		return brokenf("Secret %s/%s: %s", secret.Namespace, secret.Name, strings.Join(wrong, "; ")).
			withFix(c.encrypt(again...)).
			withAdvice("FILE being what the entry is to hold")
	}
	return okf("Secret %s/%s with entries %s", secret.Namespace, secret.Name,
		clip(strings.Join(ciphertext.Entries(secret.Data), ", ")))
}

// checkLabel compares what the Secret says of itself, by which the rotator finds it
// and rewraps it, with the class.
func (c *class) checkLabel(context.Context) finding {
	if c.secret == nil {
		return unknownf("the Secret cannot be seen")
	}
	have := c.secret.Labels[ciphertext.LabelTransitKey]
	label := c.kubectl("label", "secret", c.secret.Name, ciphertext.LabelTransitKey+"="+c.Key.Name)
	if have == "" {
		return brokenf("label %s is missing: the rotator does not find the Secret, and its key version will be "+
			"retired under it", ciphertext.LabelTransitKey).withFix(label)
	}
	set, err := ciphertext.SettingsOf(c.secret)
	if err != nil {
		return brokenf("%s", strings.ReplaceAll(err.Error(), "\n", "; ")).withFix(c.kubectl("edit", "secret", c.secret.Name))
	}
	var wrong, fix []string
	for _, s := range []struct{ what, secret, class, parameter string }{
		{"label " + ciphertext.LabelTransitKey, set.Key.Name, c.Key.Name, "transitKey"},
		{"annotation " + ciphertext.AnnotationTransitMount, set.Key.Mount, c.Key.Mount, "transitMount"},
		{"annotation " + ciphertext.AnnotationScope, string(set.Scope), string(c.Scope), "scope"},
	} {
		if s.secret != s.class {
			wrong = append(wrong, fmt.Sprintf("%s of the Secret says %s, and %s of the class %s", s.what, s.secret,
				s.parameter, s.class))
			fix = append(fix, c.setParameter(s.parameter, s.secret))
		}
	}
	if len(wrong) > 0 {
		return brokenf("%s", strings.Join(wrong, "; ")).withFix(fix...).
			withAdvice("the Secret says what it was encrypted with; a pod's volumeAttributes override the class")
	}
	return okf("key %s, scope %s, as the class has it", c.Key, set.Scope)
}

// checkOpens lets Vault rewrap the entries as the class has them, and drops the result.
func (c *class) checkOpens(ctx context.Context) finding {
	if c.secret == nil {
		return unknownf("the Secret cannot be seen")
	}
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return unknownf("there is no Vault token to rewrap with (vault login)")
	}
	as := c.secret.DeepCopy()
	ciphertext.Settings{Key: ciphertext.Key{Mount: c.Key.Mount, Name: c.Key.Name}, Scope: c.Scope}.Apply(as)
	if c.entries != nil {
		for entry := range as.Data {
			if !slices.Contains(c.entries, entry) {
				delete(as.Data, entry)
			}
		}
	}
	err = secretmanager.Verify(ctx, session, as)
	switch {
	case err == nil:
		return okf("%d of its entries open in their place (rewrapped and dropped, not decrypted)", len(as.Data))
	case errors.Is(err, secretmanager.ErrNotVerified):
		return brokenf("%s", oneLine(err)).withFix(c.encrypt(ciphertext.Entries(as.Data)...)).
			withAdvice("FILE being what the entry is to hold")
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		return unknownf("your Vault token may not rewrap with %s", c.Key)
	}
	return unknownf("%s", oneLine(err))
}
