"""Decides who may ask the service for what, and turns away what nobody may."""
