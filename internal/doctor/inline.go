package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/transit"
)

// checkInlineAuth checks the auth mounts in the provider's --vault-inline-auth, as the provider does when it starts,
// and what only Vault shows: whether it supports inline authentication, and the types of the mounts.
func (w *run) checkInlineAuth(ctx context.Context) result.Finding {
	switch {
	case w.provider.set == nil:
		return result.Unknownf("the settings of the provider could not be read")
	case len(w.provider.inline) == 0:
		return result.OKf("off")
	}
	s := w.provider.settings
	namespace := s.VaultNamespace
	for _, mount := range w.provider.inline {
		allowed := mount == s.AuthMount || configured(mount, s.AllowedAuthMounts)
		switch {
		case ciphertext.CheckPath(mount) != nil || strings.ContainsAny(mount, "*+"):
			return w.inlineFix(result.Brokenf("the provider does not start: %q in --vault-inline-auth is not the path of an "+
				"auth mount, and wildcards are not supported", mount), mount, "")
		case !allowed:
			return w.inlineFix(result.Brokenf("the provider does not start: no class may name auth mount %q, which is in "+
				"--vault-inline-auth", mount), mount, "classes are to use it")
		}
	}
	for _, mount := range w.provider.inline {
		// Other types of mounts ignore the token of the pod: it is the most dangerous one, so it comes first.
		if f := w.checkAuthMount(ctx, namespace, mount); f.State == Broken {
			without := f
			without.Fix, without.Choices = nil, nil
			without.Detail += " (--vault-inline-auth)"
			return w.inlineFix(without, mount, "")
		}
	}
	mount := w.provider.inline[0]
	session := w.vault.client.InlineSession(transit.Login{Namespace: namespace, Mount: mount, JWT: noJWT})
	_, err := session.Decrypt(ctx, ciphertext.Key{Mount: ciphertext.DefaultTransitMount, Name: "none"}, invalidCiphertext)
	var e *transit.Error
	switch {
	case !errors.As(err, &e) || e.Status == 0:
		return result.Unknownf("trying an inline login at auth/%s: %s", mount, result.VaultMessage(err))
	case !e.Login:
		return w.inlineFix(result.Brokenf("%s at %s ignores the login in a request: every mount by auth/%s fails with "+
			"InlineAuthDenied; OpenBao 2.4 or later is required", w.vault.health.Version, w.vault.api.Address(), mount),
			"", "")
	}
	return result.OKf("for auth/%s", strings.Join(w.provider.inline, ", auth/"))
}

// inlineFix adds the patch of the DaemonSet that removes a mount from --vault-inline-auth, or all of them if it is
// empty. The removal loses nothing: the provider then logs in with a request of its own. With allow, the other choice
// is to allow the mount.
func (w *run) inlineFix(f result.Finding, mount, allow string) result.Finding {
	set := w.provider.set
	index := slices.IndexFunc(set.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == providerContainer(&set.Spec.Template.Spec).Name
	})
	args := set.Spec.Template.Spec.Containers[index].Args
	at := fmt.Sprintf("/spec/template/spec/containers/%d/args", index)
	patch := func(operations ...operation) string {
		return result.Command("kubectl", "-n", set.Namespace, "patch", "daemonset", set.Name, "--type=json", "-p",
			jsonPatch(operations))
	}
	const advice = "with Helm, also change provider.inlineAuth or provider.allowedAuthMounts, so that the next " +
		"upgrade keeps it"
	var remove []operation
	for i := len(args) - 1; i >= 0; i-- { // from the end, so that the indexes stay
		value, found := strings.CutPrefix(args[i], "--vault-inline-auth=")
		if !found {
			continue
		}
		rest := slices.DeleteFunc(strings.Split(value, ","), func(m string) bool {
			return mount == "" || strings.Trim(strings.TrimSpace(m), "/") == mount
		})
		path := fmt.Sprintf("%s/%d", at, i)
		switch {
		case len(rest) == 0:
			remove = append(remove, operation{"test", path, args[i]}, operation{"remove", path, nil})
		case len(rest) < len(strings.Split(value, ",")):
			remove = append(remove, operation{"test", path, args[i]},
				operation{"replace", path, "--vault-inline-auth=" + strings.Join(rest, ",")})
		}
	}
	if len(remove) == 0 {
		return f.WithAdvice("correct --vault-inline-auth of the provider")
	}
	if allow == "" {
		return f.WithFix(patch(remove...)).WithAdvice(advice)
	}
	return f.WithChoice(allow, patch(operation{"add", at + "/-", "--vault-allowed-auth-mounts=" + mount})).
		WithChoice("it is in the list by mistake", patch(remove...)).WithAdvice(advice)
}
