# What the project in Google Cloud needs: buckets, registry, service accounts, a nightly extraction.
#
#   cd infra/terraform
#   terraform init && terraform apply -var project=PROJECT -var clips_bucket=my-clips
#
# It makes no cluster and starts no job: the scheduler waits until `template_uri` names a flex template.

terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "storage.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
}
