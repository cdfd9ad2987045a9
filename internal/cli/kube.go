package cli

import (
	"errors"
	"fmt"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/transit"
)

// newKubeFlags returns the flags of kubectl that apply here.
func newKubeFlags() *genericclioptions.ConfigFlags {
	f := genericclioptions.NewConfigFlags(true)
	f.CacheDir, f.CertFile, f.KeyFile, f.CAFile, f.BearerToken, f.APIServer, f.TLSServerName = nil, nil, nil, nil,
		nil, nil, nil
	f.Insecure, f.DisableCompression, f.ProxyURL, f.ImpersonateUID, f.ImpersonateUserExtra = nil, nil, nil, nil, nil
	*f.Timeout = requestTimeout.String()
	return f
}

// flagRequestTimeout is kubectl's flag, which is for requests to Vault too.
const flagRequestTimeout = "request-timeout"

// AddFlags adds the flags that all verbs share.
func (p *Factory) AddFlags(f *pflag.FlagSet) {
	p.KubeFlags.AddFlags(f)
	f.Lookup(flagRequestTimeout).Usage = "how long to wait for the response to one request, of Kubernetes or Vault, " +
		"such as 30s; 0: as long as it takes (for Vault also VAULT_CLIENT_TIMEOUT)"
	f.StringSliceVar(&p.VaultAddress, "vault-addr", nil,
		"address of Vault, or addresses of one cluster, separated by commas (default VAULT_ADDR)")
	f.BoolVar(&p.InsecureHTTP, "vault-insecure-http", false,
		"accept an http address of Vault outside the loopback interface, "+
			"for development: tokens and plaintext cross the network unencrypted ("+transit.EnvInsecureHTTP+")")
}

// SetTimeouts takes the timeouts from the flag and the environment.
func (p *Factory) SetTimeouts(f *pflag.FlagSet) error {
	set := func(s *server, source, text string) error {
		d, err := clientcmd.ParseTimeout(text)
		if err != nil || d < 0 {
			return Usagef("invalid %s %q: must be a number with a unit, such as 30s", source, text)
		}
		s.timeout = d
		if s.silence = max(d, silenceTimeout); d == 0 {
			s.silence = 0
		}
		return nil
	}
	if f.Changed(flagRequestTimeout) {
		if err := set(p.kube, "--"+flagRequestTimeout, *p.KubeFlags.Timeout); err != nil {
			return err
		}
		p.vault.timeout, p.vault.silence = p.kube.timeout, p.kube.silence
		return nil
	}
	if text := p.Getenv(api.EnvVaultClientTimeout); text != "" {
		return set(p.vault, api.EnvVaultClientTimeout, text)
	}
	return nil
}

// KubeClient returns a client for the cluster of the kubeconfig, without client-go's rate limit of
// five requests a second: the API server has its own limits.
func (p *Factory) KubeClient() (kubernetes.Interface, error) {
	return p.KubeClientAs("secretmanager", -1)
}

// KubeClientAs returns a client with a user agent, which the API server records as the manager of
// what is written, and at most qps requests a second.
func (p *Factory) KubeClientAs(name string, qps float32) (kubernetes.Interface, error) {
	config, err := p.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = qps, max(int(2*qps), 1)
	config.UserAgent = name + "/" + version.Number()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, p.noCluster(err)
	}
	return client, nil
}

// RESTConfig returns the configuration of a client.
func (p *Factory) RESTConfig() (*rest.Config, error) {
	config, err := p.KubeFlags.ToRESTConfig()
	if err != nil {
		return nil, p.noCluster(err)
	}
	config.QPS = -1
	// Protobuf takes a fifth of the time of JSON to decode, and ciphertext does not compress.
	config.DisableCompression = true
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+
		","+runtime.ContentTypeJSON
	config.Timeout = 0 // it would end a watch
	config.Wrap(p.kube.wrap)
	config.WarningHandler = rest.NewWarningWriter(display.Writer(p.ErrOut), rest.WarningWriterOptions{Deduplicate: true})
	return config, nil
}

func (p *Factory) noCluster(err error) error {
	return WithHint(fmt.Errorf("reading the kubeconfig: %w", err),
		"set KUBECONFIG or --kubeconfig; kubectl config get-contexts lists the contexts")
}

// ClusterNamespace returns the namespace that kubectl would use.
func (p *Factory) ClusterNamespace() (string, error) {
	if err := p.oneNamespace(); err != nil {
		return "", err
	}
	ns, _, err := p.KubeFlags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", p.noCluster(err)
	}
	return ns, nil
}

// OfflineNamespace returns the namespace that kubectl would use, or an empty one where no flag and
// no kubeconfig names one: without a cluster, "default" would be a guess.
func (p *Factory) OfflineNamespace() (string, error) {
	if ns := *p.KubeFlags.Namespace; ns != "" {
		return ns, p.oneNamespace()
	}
	loader := p.KubeFlags.ToRawKubeConfigLoader()
	raw, err := loader.RawConfig()
	if err != nil && !clientcmd.IsEmptyConfig(err) {
		return "", p.noCluster(err)
	}
	current := raw.CurrentContext
	if name := *p.KubeFlags.Context; name != "" {
		current = name
	}
	if _, found := raw.Contexts[current]; !found {
		if current != "" {
			return "", p.noCluster(fmt.Errorf("context %q does not exist", current))
		}
		return "", nil
	}
	ns, _, err := loader.Namespace()
	if err != nil {
		return "", p.noCluster(err)
	}
	return ns, nil
}

// RequireNamespace is offlineNamespace where one is needed.
func (p *Factory) RequireNamespace(why string) (string, error) {
	ns, err := p.OfflineNamespace()
	if err == nil && ns == "" {
		err = Usage(errors.New("no namespace: " + why + "; set -n, as no kubeconfig names one"))
	}
	return ns, err
}
