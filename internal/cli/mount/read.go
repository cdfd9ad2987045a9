package mount

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// secretProviderClass has the fields of the driver's API that a request needs.
type secretProviderClass struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Provider   string            `json:"provider"`
		Parameters map[string]string `json:"parameters"`
	} `json:"spec"`
}

func (o *Options) readClass(file string) (secretProviderClass, error) {
	var spc secretProviderClass
	if err := o.readManifest(file, "SecretProviderClass", &spc); err != nil {
		return spc, fmt.Errorf("--class: %w", err)
	}
	switch {
	case !strings.HasPrefix(spc.APIVersion, "secrets-store.csi.x-k8s.io/"):
		return spc, fmt.Errorf("--class: %s: apiVersion is %q and not one of secrets-store.csi.x-k8s.io", file,
			spc.APIVersion)
	case spc.Metadata.Name == "":
		return spc, fmt.Errorf("--class: %s: the SecretProviderClass has no metadata.name", file)
	case spc.Spec.Provider != class.Provider:
		return spc,
			fmt.Errorf("--class: %s: spec.provider is %q: the driver would not call the provider secretmanager", file,
				spc.Spec.Provider)
	}
	return spc, nil
}

// readSecrets returns the data that the kubelet reads for nodePublishSecretRef; nil without --secret.
func (o *Options) readSecrets(namespace string) (map[string]string, error) {
	if o.secret == "" {
		return nil, nil
	}
	var secret corev1.Secret
	if err := o.readManifest(o.secret, "Secret", &secret); err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	if secret.Namespace != "" && secret.Namespace != namespace {
		return nil,
			display.Errorf("--secret: Secret %s is in namespace %s and the pod in %s: the kubelet reads it in the "+
				"pod's namespace only", secret.Name, secret.Namespace, namespace)
	}
	data := map[string]string{}
	for name, value := range secret.Data {
		data[name] = string(value)
	}
	for name, value := range secret.StringData { // it overrides data, as in the API server
		data[name] = value
	}
	return data, nil
}

// readManifest reads the first document of a kind from a file of YAML or JSON.
func (o *Options) readManifest(file, kind string, into any) error {
	in := o.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	// The reader loses a last line without a newline that just fills its buffer.
	docs := utilyaml.NewYAMLReader(bufio.NewReader(io.MultiReader(in, strings.NewReader("\n"))))
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: no %s found", file, kind)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		var head struct {
			Kind string `json:"kind"`
		}
		// yaml.Unmarshal would convert the number 17 to a string. The API server would not.
		text, err := yaml.YAMLToJSON(doc)
		if err != nil || json.Unmarshal(text, &head) != nil {
			return fmt.Errorf("%s: document %d: not a Kubernetes object", file, n)
		}
		if head.Kind != kind {
			continue
		}
		if err := json.Unmarshal(text, into); err != nil {
			return fmt.Errorf("%s: document %d: %w", file, n, withoutValues(err))
		}
		return nil
	}
}

// withoutValues reduces an error of the decoder to the field that it names, as the value may be a
// secret.
func withoutValues(err error) error {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Errorf("field %s is not of the right type", typed.Field)
	}
	if errors.As(err, new(base64.CorruptInputError)) {
		return errors.New("a value under data is not base64")
	}
	return errors.New("the API server would not accept it")
}
